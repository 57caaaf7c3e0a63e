"""The options of every mode as dataclasses: each field is a flag of `main.py`.

A field's metadata holds the help text, the choices, and where it has an effect.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from datasets.augment import MODALITY_DROPOUTS, AugmentOptions
from datasets.splits import LEAVE_ONE_CORPUS_OUT, PROTOCOLS
from labels.emotions import CLASS_SETS
from media.configuration import Colour, PictureChoice
from models import list_models, model_inputs
from models.backbones import BACKBONES
from models.cnn_ae_lstm import ENCODERS, VARIANTS
from models.cnn_temporal import TEMPORAL
from models.late_fusion import LATE_METHODS
from models.multimodalcnn import FUSIONS, SEEN
from models.whisper_encoder import SIZES
from models.whisper_speech import LAYER_MIXES
from optim.losses import LOSSES, TASKS
from timeline.table import TimelineStyle

SHIPPED = Path(__file__).parents[1] / "results" / "pretrained"
DEFAULT_CHECKPOINT = SHIPPED / "late.safetensors"
DEFAULT_RUNS = "results"
DEFAULT_OUTPUT = "results/inference"
FOLDED = (*(name for name, p in PROTOCOLS.items() if p.folds), LEAVE_ONE_CORPUS_OUT)
AUTO_BATCH = sys.maxsize  # `--batch_size auto`, until the largest that fits is found
LR_SCHEDULES = ("constant", "step", "plateau", "cosine", "warm_restarts", "onecycle")
CHANGES = tuple(entry.name for entry in fields(AugmentOptions))


def option(
    default: Any,
    text: str,
    choices: Sequence[str] = (),
    when: tuple[str, tuple[Any, ...]] | None = None,
    least: float | None = None,
    read: Callable[[str], Any] | None = None,
) -> Any:
    """A field that becomes a flag.

    Args:
        default: its value where it is not given.
        text: help.
        choices: values allowed.
        when: (other option, its values) under which this one has an effect.
        least: smallest value allowed.
        read: text of the command line to a value, where the type alone does not say how.
    """
    metadata = {
        "help": text,
        "choices": tuple(choices),
        "when": when,
        "least": least,
        "read": read,
    }
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def number_or_auto(text: str) -> int:
    """A whole number, or `AUTO_BATCH` for `auto`. Argparse names the function in its error."""
    return AUTO_BATCH if text == "auto" else int(text)


def comma_separated(text: str) -> list[str]:
    """Names between commas."""
    found = [name.strip() for name in text.split(",")]
    if not all(found):
        raise ValueError(text)
    return found


def _branches(*modalities: str) -> tuple[str, ...]:
    """Architectures that take one of the modalities alone."""
    return tuple(name for name in list_models() if model_inputs(name) in [(m,) for m in modalities])


@dataclass
class RunOptions:
    """What every mode takes."""

    device: str = option("auto", "cpu, cuda, or auto: cuda where there is one")
    batch_size: int | None = option(
        None,
        "clips per step (training: 32; auto: the largest that fits), windows (inference: 4)",
        least=1,
        read=number_or_auto,
    )
    list_models: bool = option(False, "print a table of all architectures, and nothing else")


@dataclass
class DataOptions:
    """What is trained on or scored."""

    annotation_path: list[str] = option([], "annotation files: CSV manifest, or 4-field lines")
    dataset: str | None = option(None, "take only records of this corpus")
    task: str = option(
        "classification",
        "one class each, several labels each, or values; of target_<name> columns but for classes",
        TASKS,
    )
    targets: list[str] | None = option(
        None,
        "names of the target_<name> columns, with commas; default: all",
        when=("task", ("multilabel", "regression")),
        read=comma_separated,
    )
    classes: str = option(
        "auto",
        f"auto, {', '.join(CLASS_SETS)}, or a comma-separated list in order",
        when=("task", ("classification",)),
    )
    n_classes: int | None = option(None, "check: refuse another number of classes")
    sample_size: int | None = option(
        None, "side of face pictures; must be the store's; default: the architecture's"
    )
    sample_duration: int | None = option(
        None, "face pictures per window; default: the architecture's, mostly 15", least=1
    )
    picture_choice: PictureChoice | None = option(
        None, "which pictures of a window; default: the architecture's, mostly last"
    )
    window_seconds: float = option(1.0, "length of a window")
    speech_context_seconds: float | None = option(
        None,
        "of sound before and after a window that its speech is heard with, for whisper_speech; "
        "default: 0",
        least=0,
    )
    speech_block_seconds: float | None = option(
        None, "with that: length of the blocks that Whisper encodes one by one; default: 5"
    )
    voice_activity: float = option(
        0.0,
        "probability from which sound counts as speech, such as 0.3: music and noise do not; "
        "0: all sound counts",
        least=0,
    )
    colour: Colour = option("rgb", "colour planes given to the model")
    video_norm_value: int | None = option(
        None, "divide pictures by this (255 or 1) in place of ImageNet's mean and deviation"
    )
    pair_with: list[str] = option(
        [],
        "annotation files that lend a face or sound to records of their label that lack it",
        when=("task", ("classification",)),
    )
    balance: float = option(
        0.0,
        "draw rare classes more often in training: 0 as they come, 1 all equally often",
        when=("task", ("classification",)),
        least=0,
    )
    balance_corpora: float = option(
        0.0,
        "draw small corpora more often in training: 0 as they come, 1 all equally often; "
        "--balance is then within each corpus",
        least=0,
    )
    augment: bool = option(True, "random changes in training")
    augment_strength: float = option(
        1.0, "of all random changes; 0 for none", when=("augment", (True,)), least=0
    )
    augment_only: list[str] | None = option(
        None,
        f"only these changes, with commas: {', '.join(CHANGES)}",
        when=("augment", (True,)),
        read=comma_separated,
    )
    adapt: str = option(
        "none",
        "recording: see landmarks and blendshapes against the speaker's own mean, as far as known",
        ("none", "recording"),
    )
    whole_clips: bool = option(False, "score each record in one piece, not window by window")
    n_folds: int | None = option(None, "cross-validate over that many folds of speakers", least=3)
    leave_one_speaker_out: bool = option(False, "cross-validate, each speaker testing in turn")
    protocol: str | None = option(
        None, "cross-validate over published folds, or with each corpus testing in turn", FOLDED
    )
    n_threads: int = option(0, "processes that load samples; 0: the main one", least=0)

    @property
    def is_cross_validation(self) -> bool:
        return bool(self.n_folds or self.leave_one_speaker_out or self.protocol)


@dataclass
class ModelOptions:
    """Which architecture. What it does not take is refused; None leaves it its own default."""

    model: str = option("multimodalcnn", "architecture", list_models())
    fusion: str = option("ia", "of multimodalcnn; late: --model late_fusion", (*FUSIONS, "late"))
    num_heads: int = option(1, "attention heads, where the model has them", least=1)
    face_model: str = option("face_cnn", "branch of multimodalcnn that sees", _branches(*SEEN))
    speech_model: str = option(
        "speech_cnn", "branch of multimodalcnn that hears", _branches("speech")
    )
    backbone: str | None = option(
        None,
        "per picture, of cnn_temporal and cnn_ae_lstm",
        tuple(dict.fromkeys((*BACKBONES, *ENCODERS))),
    )
    temporal: str | None = option(
        None, "over time, of cnn_temporal; of blendshape_tcn: tcn or mean", TEMPORAL
    )
    model_variant: str = option("lstm", "of cnn_ae_lstm", VARIANTS)
    bidirectional: bool = option(True, "of cnn_ae_lstm's LSTM")
    noise: float = option(0.1, "of cnn_ae_lstm: deviation of what is added to features", least=0)
    patch_size: int = option(8, "of vit_scratch, in pixels", least=1)
    num_layers: int = option(6, "of vit_scratch", least=1)
    n_mels: int | None = option(None, "rows of the speech input; default: mostly 64", least=1)
    dropout: float | None = option(
        None, "where the model has it; default: the architecture's", least=0
    )
    late_method: str = option("product", "rule of late_fusion", LATE_METHODS)
    landmark_width: int = option(96, "channels of landmark_tcn", least=8)
    whisper_size: str | None = option(
        None, "of whisper_speech's encoder; default: tiny", tuple(SIZES)
    )
    encoder_layers: int | None = option(
        None, "of whisper_speech: the encoder's first so many layers; default: all", least=1
    )
    layer_mix: str | None = option(
        None,
        "of whisper_speech: a weighted mean of the encoder's layers (default), a projection of "
        "each side by side, or all of them as they are",
        LAYER_MIXES,
    )
    speech_width: int | None = option(
        None, "of whisper_speech: features of a frame after that; default: 128", least=1
    )
    frames_joined: int | None = option(
        None,
        "of whisper_speech: encoder frames, 50 a second, whose mean is one step; default: 1",
        least=1,
    )
    adapter_rank: int | None = option(
        None, "of whisper_speech: of low-rank adapters on the encoder; default: 0, none", least=0
    )
    blendshape_width: int = option(64, "channels of blendshape_tcn", least=8)
    head_width: int | None = option(
        None,
        "of whisper_speech: units of a hidden layer before the last; default: 0, none",
        least=0,
    )
    recurrent_width: int | None = option(
        None, "of the GRU in each direction, 0 for none; default: the architecture's", least=0
    )
    face_path: str | None = option(None, "late_fusion: checkpoint of the face classifier")
    landmarks_path: str | None = option(None, "late_fusion: of the landmark classifier")
    blendshapes_path: str | None = option(None, "late_fusion: of the blendshape classifier")
    speech_path: str | None = option(None, "late_fusion: checkpoint of the speech classifier")


@dataclass
class TrainOptions:
    """How a model is fitted."""

    recipe: str | None = option(
        None, "options of recipes/NAME.toml, or of a .toml file; flags override them"
    )
    result_path: str = option(DEFAULT_RUNS, "where run folders lie")
    run_name: str | None = option(None, "name of the run folder; default: model and time")
    resume_path: str | None = option(None, "run folder (or its last.pt) to go on with")
    pretrained: str | None = option(
        None,
        "default: torchvision's weights, as is done where the architecture has them; none: scratch",
        ("default", "none"),
    )
    pretrain_path: list[str] = option(
        [],
        "files to start from: our checkpoints for the model or its branches, torchvision's, or "
        "Whisper's (OpenAI's .pt, safetensors of Hugging Face, CTranslate2's model.bin)",
    )
    freeze_pretrained: bool = option(False, "keep what --pretrain_path gave as it is")
    trainable: list[str] | None = option(
        None,
        "blocks that are trained, with commas, as layer4,head; all; default: the architecture's "
        "where weights of torchvision or Whisper are loaded, else all",
        read=comma_separated,
    )
    no_train: bool = option(False, "only score the run at --resume_path")
    no_val: bool = option(False, "no validation while training: the last epoch is kept")
    test_subset: str = option("test", "scored at the end", ("test", "val", "none"))
    mask: str = option("softhard", "modality dropout", MODALITY_DROPOUTS)
    n_epochs: int = option(100, "epochs in all", least=1)
    begin_epoch: int = option(1, "first epoch's number, for the schedule of a fresh run", least=1)
    optimizer: str = option("sgd", "optimizer", ("sgd", "adam", "adamw"))
    learning_rate: float = option(0.04, "sgd's dampening of 0.9 makes it 10 times less", least=0)
    lr_backbone: float | None = option(
        None, "of all but the head; default: the learning rate", least=0
    )
    lr_head: float | None = option(None, "of the head; default: the learning rate", least=0)
    momentum: float = option(0.9, "of sgd", when=("optimizer", ("sgd",)))
    dampening: float = option(0.9, "of sgd", when=("optimizer", ("sgd",)))
    weight_decay: float = option(1e-3, "weight decay", least=0)
    lr_schedule: str = option("plateau", "learning rate over time", LR_SCHEDULES)
    lr_steps: list[int] = option(
        [40, 55, 65, 70, 200, 250], "epochs that divide it by 10", when=("lr_schedule", ("step",))
    )
    lr_patience: int = option(
        10, "epochs without a better loss", when=("lr_schedule", ("plateau",))
    )
    restart_epochs: int = option(
        10, "from restart to restart", when=("lr_schedule", ("warm_restarts",)), least=1
    )
    warmup_epochs: float = option(0.0, "of a linear rise before the schedule", least=0)
    accumulate: int = option(1, "batches whose gradients are joined to one step", least=1)
    gradient_checkpointing: bool = option(
        False, "compute large blocks twice to save memory, where the architecture can"
    )
    clip_grad: float = option(0.0, "largest norm of the gradient; 0 for no limit", least=0)
    loss: str | None = option(
        None,
        "; ".join(f"{task}: {', '.join(found)}" for task, found in LOSSES.items()),
        tuple(name for found in LOSSES.values() for name in found),
    )
    focal_gamma: float = option(2.0, "of the focal loss", when=("loss", ("focal",)), least=0)
    class_weights: str = option(
        "none",
        "balanced: rare classes, or the positives of rare labels, count as much as others",
        ("none", "balanced"),
        when=("task", ("classification", "multilabel")),
    )
    logit_adjustment: bool = option(
        False,
        "train for equally frequent classes: the loss sees the logits plus the logarithm of how "
        "frequent each class is in training",
        when=("task", ("classification",)),
    )
    label_smoothing: float = option(
        0.0, "of the cross-entropy", when=("task", ("classification",)), least=0
    )
    auxiliary: float = option(
        0.0, "share of the loss that the heads of a model's parts bear, 0 to 1", least=0
    )
    reconstruction: float = option(
        0.0, "weight of what an autoencoder fails to restore, beside the loss of the task", least=0
    )
    mixup: float = option(0.0, "alpha of MixUp; 0 for none", least=0)
    ema: float = option(0.0, "decay of the averaged weights that are validated; 0 for none")
    amp: str = option(
        "auto", "mixed precision; auto: bf16 on cuda", ("auto", "off", "bf16", "fp16")
    )
    confusion_every: int = option(
        0,
        "draw validation's confusion after each so many epochs; 0: at the end only",
        when=("task", ("classification",)),
        least=0,
    )
    early_stopping: int = option(0, "epochs without a better validation score; 0 for none")
    manual_seed: int = option(1, "of every random draw")


@dataclass
class InferenceOptions:
    """How media files become timelines."""

    only_inference: bool = option(False, "no training: read --media_path (which implies it)")
    media_path: list[str] = option([], "files, folders or globs")
    speaker_column: str | None = option(
        None,
        "implies --adapt recording: --media_path names CSV tables with a column 'media'; this "
        "column of theirs says who speaks, and a speaker's mean face goes on from file to file",
    )
    speaker_folder: bool = option(
        False,
        "implies --adapt recording: files of one folder are of one speaker, whose mean face goes "
        "on from file to file",
    )
    model_path: str = option(str(DEFAULT_CHECKPOINT), "checkpoint")
    efficientface_path: str | None = option(
        None, "published EfficientFace to see with, in place of the checkpoint's face classifier"
    )
    hop_seconds: float | None = option(None, "from window to window; default: the window")
    sample_rate: float | None = option(
        None, "models of single pictures: so many pictures a second, each a row"
    )
    uncertain: float | None = option(
        None, "mark rows whose set of classes of this coverage, such as 0.9, is not of one class"
    )
    contributions: bool = option(
        False, "fused models: columns of what each modality adds to the winner, and of gates"
    )
    face_measures: bool = option(
        False, "columns of the face's mean blendshapes and the head's yaw, pitch, roll in degrees"
    )
    output: str = option(DEFAULT_OUTPUT, "folder for <name>.csv, .json and .png")
    save_plot: str | None = option(None, "file for the plot of a single recording")
    no_plot: bool = option(False, "write no plot")
    resume: bool = option(
        False,
        "leave out recordings that --output holds already, made by this command and unchanged",
    )
    plot_style: TimelineStyle = option("stacked", "of the plot")
    yunet_path: str | None = option(None, "ONNX file of OpenCV's YuNet: a faster face detector")
