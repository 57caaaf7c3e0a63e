"""A trained model: weights, architecture, class names, ClipConfig, task and what it was trained on.

Ours is one `.safetensors` file whose metadata holds the rest as JSON. Checkpoints published by
others (`.pth`, `.pth.tar`, with or without `module.`) are recognised by their keys.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

from checkpoints.tfjs_weights import faceres_state, is_faceres, read_tfjs_weights
from checkpoints.torch_files import read_foreign_weights, without_module
from checkpoints.whisper_weights import WhisperWeights, describe_size, is_whisper, read_whisper
from evaluation.calibration import Calibration, ConformalRule
from labels.emotions import AFFECTNET7, RAVDESS
from media.adaptation import Prior
from media.configuration import ENTRIES, LEGACY, ClipConfig
from models import EmotionModel, build_model, find_block_encoder
from models.late_fusion import EVIDENCE
from system.files import replacing

VERSION = 1
_METADATA = "emofuse"
# Mean and deviation that the authors of EfficientFace normalise their 224-pixel pictures by.
_EFFICIENTFACE_CLIPS = ClipConfig(
    face_size=224,
    face_mean=(0.57535914, 0.44928582, 0.40079932),
    face_std=(0.20735591, 0.18981615, 0.18132027),
)


@dataclass(frozen=True)
class Checkpoint:
    """A model with all that is needed to use it.

    Args:
        model: in evaluation mode, on the CPU.
        class_names: of its logits, in order.
        clip_config: of its inputs.
        task: `classification`.
        info: corpora, licence and speakers that it was trained on, scores: for people.
        calibration: of its probabilities, fitted on validation speakers; None where it has none.
        conformal: rules for sets of classes, by coverage.
        priors: of `landmarks` and `blendshapes`, for models with speaker adaptation: the mean that
            they are seen against until a speaker's own is known.
        source: file it was read from, and its SHA-256.
    """

    model: EmotionModel
    class_names: tuple[str, ...]
    clip_config: ClipConfig
    task: str = "classification"
    info: dict[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None
    conformal: tuple[ConformalRule, ...] = ()
    priors: Mapping[str, Prior] = field(default_factory=dict)
    source: dict[str, str] = field(default_factory=dict)

    @property
    def architecture(self) -> dict[str, Any]:
        return {"name": self.model.name, "arguments": self.model.arguments}

    def part(self, modality: str) -> Checkpoint:
        """The `face` or `speech` classifier of a late fusion, as a checkpoint of its own."""
        member = self.model.get_submodule(f"members.{modality}")
        assert isinstance(member, EmotionModel)
        priors = {name: prior for name, prior in self.priors.items() if name == modality}
        return replace(self, model=member, calibration=None, conformal=(), priors=priors)


@dataclass(frozen=True)
class KeyReport:
    """How the keys of a file met those of a model (or of the part of it named `prefix`)."""

    prefix: str
    matched: list[str]
    missing: list[str]
    unexpected: list[str]

    def __str__(self) -> str:
        part = f" of {self.prefix.rstrip('.')}" if self.prefix else ""
        return (
            f"{len(self.matched)} tensors matched{part}, {len(self.missing)} missing"
            f"{_some(self.missing)}, {len(self.unexpected)} not used{_some(self.unexpected)}"
        )


def _some(keys: list[str]) -> str:
    shown = ", ".join(keys[:4]) + (", …" if len(keys) > 4 else "")
    return f" ({shown})" if keys else ""


def save_checkpoint(checkpoint: Checkpoint, path: Path, half: bool = False) -> None:
    """Write the file whole, or not at all. `half` stores float weights in 16 bits."""
    metadata = {
        "version": VERSION,
        "architecture": checkpoint.architecture,
        "class_names": list(checkpoint.class_names),
        "task": checkpoint.task,
        "clip_config": checkpoint.clip_config.to_dict(),
        "info": checkpoint.info,
        "calibration": checkpoint.calibration.to_dict() if checkpoint.calibration else None,
        "conformal": [rule.to_dict() for rule in checkpoint.conformal],
        "priors": {name: prior.to_dict() for name, prior in checkpoint.priors.items()},
    }
    weights = {
        name: (value.half() if half and value.dtype == torch.float32 else value).contiguous()
        for name, value in checkpoint.model.state_dict().items()
    }
    with replacing(path) as temporary:
        temporary.write_bytes(serialise(weights, {_METADATA: json.dumps(metadata)}))


def load_checkpoint(path: Path, num_heads: int = 1) -> Checkpoint:
    """Read a checkpoint of ours, or one published by others.

    Args:
        path: `.safetensors`, `.pth`, `.pth.tar`, or HSE FaceRes's `.json` (without classifier).
        num_heads: attention heads of a published fusion model, which its keys do not tell.

    Raises:
        ValueError: not a checkpoint, another architecture, or keys that do not match.
    """
    if not path.is_file():
        raise ValueError(f"no checkpoint at {path}")
    if is_whisper(path):
        raise ValueError(
            f"{path} holds Whisper's encoder, which knows no emotions: train whisper_speech from "
            "it with --pretrain_path"
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    source = {"name": path.name, "sha256": digest}
    if path.suffix == ".safetensors":
        return replace(_load_own(path), source=source)
    if path.suffix == ".json":
        return replace(_import_faceres(path), source=source)
    return replace(_import_foreign(read_foreign_weights(path), path, num_heads), source=source)


def _load_own(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get(_METADATA, "null"))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, RecursionError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    if metadata is None:
        raise ValueError(f"{path} was not written by this project: it lacks its configuration")
    try:
        return _build_own(metadata, weights, path)
    except (KeyError, TypeError, AttributeError, RuntimeError, ArithmeticError) as error:
        raise ValueError(
            f"{path} holds a configuration that cannot be used ({_first_line(error)}): it is "
            "damaged; copy or train it again"
        ) from error


def _build_own(metadata: Any, weights: dict[str, Tensor], path: Path) -> Checkpoint:
    if metadata["version"] != VERSION:
        raise ValueError(f"{path} has version {metadata['version']}; this code reads {VERSION}")
    architecture = metadata["architecture"]
    model = build_model(architecture["name"], **architecture["arguments"])
    _load_strictly(model, without_module(weights), path)
    return Checkpoint(
        model=model.eval(),
        class_names=tuple(metadata["class_names"]),
        clip_config=ClipConfig.from_dict(metadata["clip_config"]),
        task=metadata["task"],
        info=metadata["info"],
        calibration=_read_calibration(metadata),
        conformal=tuple(ConformalRule.from_dict(rule) for rule in metadata.get("conformal", ())),
        priors=_read_priors(metadata),
    )


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


def _read_priors(metadata: dict[str, Any]) -> dict[str, Prior]:
    """By modality; older files hold one, of landmarks."""
    found = dict(metadata.get("priors", {}))
    if metadata.get("prior"):
        found["landmarks"] = metadata["prior"]
    return {name: Prior.from_dict(values) for name, values in found.items()}


def _read_calibration(metadata: dict[str, Any]) -> Calibration | None:
    values = metadata.get("calibration")
    return Calibration.from_dict(values) if values else None


def _load_strictly(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    try:
        model.load_state_dict(dict(weights), strict=True)
    except RuntimeError as error:
        report = compare_keys(model, weights)
        raise ValueError(f"{path} does not fit its architecture: {report}") from error
    broken = [n for n, value in model.named_parameters() if not torch.isfinite(value).all()]
    if broken:
        raise ValueError(
            f"{path} holds weights that are not finite (NaN or infinite), in {len(broken)} tensors"
            f"{_some(broken)}: its training diverged; take an earlier checkpoint, or train with a "
            "lower --learning_rate"
        )


def _import_foreign(weights: dict[str, Tensor], path: Path, num_heads: int) -> Checkpoint:
    if "audio_model.conv1d_0.0.weight" in weights:
        return _import_fusion(weights, path, num_heads)
    if "local.conv1_1.weight" in weights and "fc.weight" in weights:
        return _import_efficientface(weights, path)
    raise ValueError(
        f"{path} holds neither a published EfficientFace nor a published audiovisual fusion model"
    )


def _import_efficientface(weights: dict[str, Tensor], path: Path) -> Checkpoint:
    classes = len(weights["fc.weight"])
    model = build_model("efficientface", num_classes=classes)
    _load_strictly(model, weights, path)
    names = AFFECTNET7 if classes == len(AFFECTNET7) else tuple(map(str, range(classes)))
    return Checkpoint(model.eval(), names, _EFFICIENTFACE_CLIPS, info=_IMPORTED_EFFICIENTFACE)


def _import_fusion(weights: dict[str, Tensor], path: Path, num_heads: int) -> Checkpoint:
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
    _load_strictly(model, weights, path)
    names = RAVDESS if classes == len(RAVDESS) else tuple(map(str, range(classes)))
    return Checkpoint(model.eval(), names, LEGACY, info=_IMPORTED_FUSION)


def _import_faceres(path: Path) -> Checkpoint:
    weights = read_tfjs_weights(path)
    if not is_faceres(weights):
        raise ValueError(f"{path} is a TensorFlow.js model, but not HSE FaceRes")
    model = build_model("mobilenet_face", num_classes=0)
    _load_strictly(model, faceres_state(weights), path)
    config = replace(ClipConfig(), face_size=224, **model.clip_defaults)
    return Checkpoint(model.eval(), (), config, info=_IMPORTED_FACERES)


_IMPORTED_FACERES = {
    "origin": "published with Savchenko, 2019; trained on VGGFace2",
    "corpora": ["VGGFace2"],
    "licence": ["VGGFace2: research use (HSE FaceRes: MIT)"],
}
_IMPORTED_EFFICIENTFACE = {"origin": "published with Zhao et al., AAAI 2021; trained on AffectNet"}
_IMPORTED_FUSION = {"origin": "published with Chumachenko et al., ICPR 2022; trained on RAVDESS"}


def compare_keys(model: nn.Module, weights: Mapping[str, Tensor], prefix: str = "") -> KeyReport:
    """Which tensors of a file fit the part of a model under `prefix`, by name and shape."""
    own = {
        name.removeprefix(prefix): value
        for name, value in model.state_dict().items()
        if name.startswith(prefix)
    }
    matched = [n for n, v in weights.items() if n in own and own[n].shape == v.shape]
    return KeyReport(
        prefix,
        matched,
        missing=sorted(set(own) - set(matched)),
        unexpected=sorted(set(weights) - set(matched)),
    )


def load_pretrained(model: nn.Module, path: Path) -> KeyReport:
    """Start the fitting part of a model (all of it, or one branch) from trained weights.

    Heads may differ; every other tensor of that part must be there. Published weights of Whisper
    start the encoder of speech, wherever in the model it is.

    Raises:
        ValueError: no part of the model matches.
    """
    whisper = read_whisper(path)
    if whisper is not None:
        return _start_whisper(model, whisper, path)
    start = load_checkpoint(path).model
    weights = dict(start.state_dict())
    prefixes = ["", *(f"{name}." for name, _ in model.named_children())]
    reports = [compare_keys(model, weights, prefix) for prefix in prefixes]
    best = max(reports, key=lambda report: len(report.matched))
    lacking = [name for name in best.unexpected if name.split(".")[0] not in start.head]
    if lacking or not best.matched:
        raise ValueError(f"{path} does not match any part of {type(model).__name__}: {best}")
    part = model.get_submodule(best.prefix.rstrip(".")) if best.prefix else model
    part.load_state_dict({name: weights[name] for name in best.matched}, strict=False)
    return best


def _start_whisper(model: nn.Module, whisper: WhisperWeights, path: Path) -> KeyReport:
    """The encoder of Whisper in a model; layers that it leaves out are not used."""
    part = find_block_encoder(model)
    if part is None:
        raise ValueError(
            f"{path} holds Whisper's weights, and {type(model).__name__} has no encoder of "
            "Whisper: give --model whisper_speech, or --speech_model whisper_speech"
        )
    if part.size != whisper.size:
        raise ValueError(
            f"{path} holds Whisper {describe_size(whisper.size)}, and the model's encoder is "
            f"{describe_size(part.size)}: give another file or --whisper_size"
        )
    prefix = next(n for n, module in model.named_modules() if module is part.encoder) + "."
    report = compare_keys(model, whisper.tensors, prefix)
    weights = {name: whisper.tensors[name] for name in report.matched}
    part.encoder.load_state_dict(weights, strict=False)
    return report


def combine_checkpoints(parts: Mapping[str, Checkpoint], late_method: str) -> Checkpoint:
    """A late fusion whose members see and hear as each of `parts` was trained, by modality.

    With the rule `evidence` each member keeps its own temperature.

    Raises:
        ValueError: different classes, or windows of different length.
    """
    first = next(iter(parts.values()))
    for modality, part in parts.items():
        name = part.source.get("name", "the checkpoint")
        if part.class_names != first.class_names:
            raise ValueError(
                f"the {modality} classifier knows {', '.join(part.class_names)} and another "
                f"{', '.join(first.class_names)}: they cannot be combined"
            )
        if part.model.inputs != (modality,):
            raise ValueError(f"{name} is a {part.model.name}, not a classifier of {modality} alone")
    model = build_model(
        "late_fusion",
        **{modality: part.architecture for modality, part in parts.items()},
        num_classes=len(first.class_names),
        late_method=late_method,
    )
    for modality, part in parts.items():
        model.get_submodule(f"members.{modality}").load_state_dict(part.model.state_dict())
    if late_method == EVIDENCE:
        scales = [part.calibration.scale[0] if part.calibration else 1.0 for part in parts.values()]
        model.get_buffer("scale").copy_(torch.tensor(scales))
    config = merge_clip_configs({name: part.clip_config for name, part in parts.items()})
    info = merge_provenance([part.info for part in parts.values()])
    priors = {name: prior for part in parts.values() for name, prior in part.priors.items()}
    return Checkpoint(model.eval(), first.class_names, config, info=info, priors=priors)


PROVENANCE = ("corpora", "licence", "training_speakers")


def merge_provenance(infos: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """What several parts were trained on, together."""
    found = list(infos)
    return {
        name: sorted({value for info in found for value in info.get(name, ())})
        for name in PROVENANCE
    }


def reorder_classes(checkpoint: Checkpoint, class_names: tuple[str, ...]) -> Checkpoint:
    """The same classifier with its classes in another order.

    Raises:
        ValueError: other classes than the checkpoint's, or a model without a linear head.
    """
    if set(checkpoint.class_names) != set(class_names):
        raise ValueError(
            f"{checkpoint.source.get('name', 'the checkpoint')} knows "
            f"{', '.join(checkpoint.class_names)}, not {', '.join(class_names)}"
        )
    order = [checkpoint.class_names.index(name) for name in class_names]
    layers = [
        module
        for head in checkpoint.model.head
        for module in checkpoint.model.get_submodule(head).modules()
        if isinstance(module, nn.Linear)
    ]
    if not layers:
        raise ValueError(f"{checkpoint.model.name} has no linear head to reorder")
    with torch.no_grad():
        layers[-1].weight.copy_(layers[-1].weight[order])
        layers[-1].bias.copy_(layers[-1].bias[order])
    return replace(checkpoint, class_names=class_names, calibration=None, conformal=())


def merge_clip_configs(configs: Mapping[str, ClipConfig]) -> ClipConfig:
    """The constants of a model whose parts were trained with `configs`, by modality.

    Raises:
        ValueError: windows of different length.
    """
    lengths = {name: config.window_seconds for name, config in configs.items()}
    if len(set(lengths.values())) > 1:
        told = " and ".join(f"{name} on windows of {value:g} s" for name, value in lengths.items())
        raise ValueError(f"parts were trained otherwise, {told}: train all on the same")
    values: dict[str, Any] = {"window_seconds": next(iter(lengths.values()))}
    for name, config in configs.items():
        entries = (*ENTRIES[name], *(("pictures", "picture_choice") if name == "face" else ()))
        values |= {entry: getattr(config, entry) for entry in entries}
    return replace(ClipConfig(), **values)
