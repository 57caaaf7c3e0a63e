"""Which architecture, and what its constructor is given."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

from models.names import FUSIONS, list_architectures
from system.flags import COMBINE, FIT, INFER, option

# Arguments of single architectures that had options of their own until version 0.1.
OLD_OPTIONS = [
    "adapter_rank",
    "backbone",
    "bidirectional",
    "blendshape_width",
    "encoder_layers",
    "frames_joined",
    "head_width",
    "landmark_width",
    "late_method",
    "layer_mix",
    "model_variant",
    "noise",
    "num_layers",
    "patch_size",
    "recurrent_width",
    "speech_width",
    "temporal",
    "whisper_size",
]
_of_model = partial(option, stage=(FIT, COMBINE))


@dataclass(frozen=True)
class ModelOptions:
    """An architecture. What it does not take is refused; None leaves it its own default."""

    model: str = _of_model("multimodalcnn", "architecture", choices=list_architectures)
    model_arg: dict[str, Any] = _of_model(
        {},
        "argument of the architecture's own, such as whisper_size=base; repeatable. A wrong name "
        "lists what the architecture takes",
        metavar="NAME=VALUE",
    )
    fusion: str = option(
        "ia",
        "how multimodalcnn joins face and speech; late: the rule of --model late_fusion",
        stage=(FIT, COMBINE, INFER),
        choices=(*FUSIONS, "late"),
    )
    face_model: str = _of_model("face_cnn", "multimodalcnn: architecture of the face branch")
    speech_model: str = _of_model("speech_cnn", "multimodalcnn: architecture of the speech branch")
    num_heads: int = option(
        1, "number of attention heads, where there are any", stage=(FIT, COMBINE, INFER), least=1
    )
    dropout: float | None = _of_model(
        None, "dropout, where there is any (default: the architecture's)", least=0
    )
    n_mels: int | None = _of_model(None, "rows of the spectrogram (default: mostly 64)", least=1)
    face_path: str | None = _of_model(
        None, "late_fusion: checkpoint of the face classifier", metavar="FILE"
    )
    landmarks_path: str | None = _of_model(
        None, "late_fusion: checkpoint of the landmark classifier", metavar="FILE"
    )
    blendshapes_path: str | None = _of_model(
        None, "late_fusion: checkpoint of the blendshape classifier", metavar="FILE"
    )
    speech_path: str | None = _of_model(
        None, "late_fusion: checkpoint of the speech classifier", metavar="FILE"
    )

    def arguments(self, accepted: Collection[str]) -> dict[str, Any]:
        """What the constructor is given of what it accepts: `model_arg`, over options of a name."""
        values = {**vars(self), **self.model_arg}
        return {name: values[name] for name in accepted if values.get(name) is not None}
