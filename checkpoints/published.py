"""Trained models that others published, recognised by the keys of their files.

EfficientFace, the audiovisual fusion of Chumachenko et al. (`.pth`, `.pth.tar`, with or without
`module.`), and HSE FaceRes (TensorFlow.js). Only weights are read, never code.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from checkpoints.keys import load_strictly
from checkpoints.tfjs_weights import faceres_state, is_faceres, read_tfjs_weights
from checkpoints.torch_files import read_foreign_weights
from labels.emotions import AFFECTNET7, RAVDESS
from media.configuration import LEGACY, ClipConfig
from models import EmotionModel, build_model

# The authors of EfficientFace normalise faces of 224 pixels by this mean and standard deviation.
_EFFICIENTFACE_CLIPS = ClipConfig(
    face_size=224,
    face_mean=(0.57535914, 0.44928582, 0.40079932),
    face_std=(0.20735591, 0.18981615, 0.18132027),
)
_IMPORTED_FACERES = {
    "origin": "published with Savchenko, 2019; trained on VGGFace2",
    "corpora": ["VGGFace2"],
    "licence": ["VGGFace2: research use (HSE FaceRes: MIT)"],
}
_IMPORTED_EFFICIENTFACE = {"origin": "published with Zhao et al., AAAI 2021; trained on AffectNet"}
_IMPORTED_FUSION = {"origin": "published with Chumachenko et al., ICPR 2022; trained on RAVDESS"}


@dataclass(frozen=True)
class Published:
    """What a published file gives.

    Args:
        model: in evaluation mode, on the CPU.
        class_names: of its logits, in order; numbers where the file's classes are not known.
        clip_config: of its inputs.
        info: where it comes from and what it was trained on.
    """

    model: EmotionModel
    class_names: tuple[str, ...]
    clip_config: ClipConfig
    info: dict[str, Any]


def read_published(path: Path, num_heads: int = 1) -> Published:
    """Read a file of any published format that is known, recognised by its keys.

    Args:
        path: `.pth`, `.pth.tar`, or HSE FaceRes's `.json` (without classifier).
        num_heads: attention heads of a published fusion model, which its keys do not tell.

    Raises:
        ValueError: another architecture, or keys that do not match.
    """
    if path.suffix == ".json":
        return _read_faceres(path)
    weights = read_foreign_weights(path)
    if "audio_model.conv1d_0.0.weight" in weights:
        return _read_fusion(weights, path, num_heads)
    if "local.conv1_1.weight" in weights and "fc.weight" in weights:
        return _read_efficientface(weights, path)
    raise ValueError(
        f"{path} holds neither a published EfficientFace nor a published audiovisual fusion model"
    )


def _read_efficientface(weights: dict[str, Tensor], path: Path) -> Published:
    classes = len(weights["fc.weight"])
    model = build_model("efficientface", num_classes=classes)
    load_strictly(model, weights, path)
    names = AFFECTNET7 if classes == len(AFFECTNET7) else tuple(map(str, range(classes)))
    return Published(model.eval(), names, _EFFICIENTFACE_CLIPS, _IMPORTED_EFFICIENTFACE)


def _read_fusion(weights: dict[str, Tensor], path: Path, num_heads: int) -> Published:
    if "av.attn.q.weight" in weights:
        fusion = "lt"
    else:
        fusion = "it" if "av1.attn.q.weight" in weights else "ia"
    classes = len(weights["classifier_1.0.weight"])
    model = build_model(
        "multimodalcnn",
        num_classes=classes,
        fusion=fusion,
        num_heads=num_heads,
        speech_model="mfcc_cnn",
        n_mels=weights["audio_model.conv1d_0.0.weight"].shape[1],
    )
    load_strictly(model, weights, path)
    names = RAVDESS if classes == len(RAVDESS) else tuple(map(str, range(classes)))
    return Published(model.eval(), names, LEGACY, _IMPORTED_FUSION)


def _read_faceres(path: Path) -> Published:
    weights = read_tfjs_weights(path)
    if not is_faceres(weights):
        raise ValueError(f"{path} is a TensorFlow.js model, but not HSE FaceRes")
    model = build_model("mobilenet_face", num_classes=0)
    load_strictly(model, faceres_state(weights), path)
    config = replace(ClipConfig(), face_size=224, **model.clip_defaults)
    return Published(model.eval(), (), config, _IMPORTED_FACERES)
