"""An experiment: a model with the data it is trained or scored on, and its run folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from checkpoint import (
    Checkpoint,
    combine_checkpoints,
    load_checkpoint,
    load_pretrained,
    merge_provenance,
    save_checkpoint,
)
from datasets.annotations import Record, read_annotations
from datasets.augment import AugmentOptions
from datasets.corpora import CORPORA
from datasets.labels import resolve_classes
from datasets.prepare import STORE_NAME, prepare_records
from datasets.samples import ClipDataset, SampleOptions, StoreSet
from datasets.splits import check_speakers
from device import pick_device
from files import write_json
from losses import ClassificationLoss
from media.clip import FACE, SPEECH, ClipConfig
from metrics import confusion_matrix
from models import EmotionModel, accepted_arguments, build_model, model_inputs
from opts import EVALUATE, DataOptions, Options, run_folder_of
from reports.plots import plot_confusion, plot_learning_curves, write_figure
from training import Fit, build_fit, fit, load_state
from validation import evaluate, predict, write_predictions

_SUBSETS = {"val": "validation", "test": "testing"}
_DEFAULT_BATCH = 32


@dataclass
class Experiment:
    """A model with the data it is trained or scored on."""

    options: Options
    folder: Path
    device: torch.device
    records: list[Record]
    lenders: list[Record]
    stores: StoreSet
    checkpoint: Checkpoint
    say: Callable[[str], None]

    @property
    def model(self) -> EmotionModel:
        return self.checkpoint.model

    def has(self, subset: str) -> bool:
        return any(record.subset == subset for record in self.records)

    def loader(self, subset: str, train: bool = False) -> DataLoader[dict[str, Any]]:
        """Batches of a subset; in training in random order, the same for a seed and an epoch.

        Raises:
            ValueError: the subset has no usable record.
        """
        data, run = self.options.data, self.options.run
        seed = self.options.train.manual_seed
        dataset = ClipDataset(
            [record for record in self.records if record.subset == subset],
            self.stores,
            self.checkpoint.clip_config,
            self.checkpoint.class_names,
            self.model.inputs,
            SampleOptions(
                train=train,
                augment=AugmentOptions() if data.augment else None,
                lenders=self.lenders,
                seed=seed,
            ),
        )
        return DataLoader(
            dataset,
            batch_size=run.batch_size or _DEFAULT_BATCH,
            sampler=_EpochSampler(dataset, seed, data.balance) if train else None,
            num_workers=data.n_threads,
            drop_last=train and len(dataset) > (run.batch_size or _DEFAULT_BATCH),
        )


class _EpochSampler(torch.utils.data.Sampler[int]):
    """A random order that depends on the seed and on the dataset's epoch alone.

    With `balance` above 0, records are drawn with replacement, each class of n records by a share
    in proportion to n ** (1 - balance).
    """

    def __init__(self, dataset: ClipDataset, seed: int, balance: float) -> None:
        self._dataset, self._seed = dataset, seed
        labels = torch.tensor(dataset.labels)
        self._weights = labels.bincount()[labels].double() ** -balance if balance else None

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 100_003 + self._dataset.epoch)
        if self._weights is None:
            return iter(torch.randperm(len(self), generator=generator).tolist())
        drawn = torch.multinomial(self._weights, len(self), replacement=True, generator=generator)
        return iter(drawn.tolist())


def run_experiment(options: Options, say: Callable[[str], None]) -> Path:
    """Train and score, or score only. Returns the run folder.

    Args:
        say: takes each line for the user.

    Raises:
        ValueError: data, options and checkpoints that do not go together.
    """
    torch.manual_seed(options.train.manual_seed)
    folder = _run_folder(options)
    experiment = _build_experiment(options, folder, say)
    if options.mode != EVALUATE:
        _train(experiment)
    best = folder / "model_best.safetensors"
    experiment.checkpoint = load_checkpoint(best)
    experiment.model.to(experiment.device)
    _report(experiment)
    return folder


def _run_folder(options: Options) -> Path:
    train = options.train
    if train.resume_path:
        return run_folder_of(train.resume_path)
    name = train.run_name or f"{options.model.model}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = Path(train.result_path) / name
    if (folder / "opts.json").exists():
        raise ValueError(f"{folder} holds a run: give --resume_path {folder} or another --run_name")
    return folder


def _build_experiment(options: Options, folder: Path, say: Callable[[str], None]) -> Experiment:
    records, lenders, stores = _read_data(options.data, say)
    device = pick_device(options.run.device)
    if options.mode == EVALUATE:
        checkpoint = load_checkpoint(folder / "model_best.safetensors")
    else:
        checkpoint = _build_checkpoint(options, records, stores.config)
    checkpoint.model.to(device)
    return Experiment(options, folder, device, records, lenders, stores, checkpoint, say)


def _read_data(
    options: DataOptions, say: Callable[[str], None]
) -> tuple[list[Record], list[Record], StoreSet]:
    """Records, those that only lend, and the stores of both, prepared here where they were not."""
    records: list[Record] = []
    lenders: list[Record] = []
    folders = []
    for group, paths in ((records, options.annotation_path), (lenders, options.pair_with)):
        for path in map(Path, paths):
            found, folder = _read_annotated(path, options, say)
            group += found
            folders.append(folder)
    records = [record for record in records if options.dataset in (None, record.dataset)]
    if not records:
        raise ValueError(f"no records of dataset {options.dataset} in {options.annotation_path}")
    check_speakers([*records, *lenders])
    stores = StoreSet(folders)
    if options.sample_size not in (None, stores.config.face_size):
        raise ValueError(
            f"--sample_size {options.sample_size}, but the store holds faces of "
            f"{stores.config.face_size} pixels: prepare it with --face_size {options.sample_size}"
        )
    return _held(records, stores, say), _held(lenders, stores, say), stores


def _read_annotated(
    path: Path, options: DataOptions, say: Callable[[str], None]
) -> tuple[list[Record], Path]:
    """Records of a file and the store beside it, made here if the file was not prepared."""
    records = read_annotations(path)
    folder = path.parent / STORE_NAME
    if (folder / "store.json").exists():
        return records, folder
    folder = path.with_name(f"{path.stem}.{STORE_NAME}")
    size = options.sample_size or ClipConfig().face_size
    failures = prepare_records(records, folder, ClipConfig(face_size=size))
    for reason in failures.values():
        say(f"left out: {reason}")
    return [record for record in records if record.key not in failures], folder


def _held(records: list[Record], stores: StoreSet, say: Callable[[str], None]) -> list[Record]:
    held = [record for record in records if stores.holds(record.key)]
    if len(held) < len(records):
        say(f"left out: {len(records) - len(held)} records that no store holds; prepare again")
    if records and not held:
        raise ValueError("none of the records is in a store: prepare the corpus again")
    return held


def _build_checkpoint(options: Options, records: list[Record], stored: ClipConfig) -> Checkpoint:
    """A fresh model, or one combined of trained parts, with its class names and constants."""
    names = resolve_classes(options.data.classes, (record.label for record in records))
    if options.data.n_classes not in (None, len(names)):
        raise ValueError(
            f"--n_classes {options.data.n_classes}, but there are {len(names)}: {', '.join(names)}"
        )
    accepted = accepted_arguments(options.model.model)
    values = {**vars(options.model), "num_classes": len(names)}
    arguments = {name: values[name] for name in accepted if name in values}
    members = [name for name in model_inputs(options.model.model) if name in accepted]
    if members:
        parts = {name: _read_part(name, values[f"{name}_path"], names) for name in members}
        return combine_checkpoints(parts["face"], parts["speech"], arguments["late_method"])
    return Checkpoint(
        build_model(options.model.model, **arguments), names, _clip_config(options, stored)
    )


def _read_part(modality: str, path: str | None, names: tuple[str, ...]) -> Checkpoint:
    if path is None:
        raise ValueError(f"give --{modality}_path, the trained {modality} classifier to combine")
    part = load_checkpoint(Path(path))
    if part.class_names != names:
        raise ValueError(
            f"{path} knows {', '.join(part.class_names)}; this run has {', '.join(names)}"
        )
    return part


def _clip_config(options: Options, stored: ClipConfig) -> ClipConfig:
    """The store's constants, with those that are applied when a clip is cut from it."""
    data = options.data
    config = replace(
        stored,
        window_seconds=data.window_seconds,
        pictures=data.sample_duration,
        picture_choice=data.picture_choice,
        colour=data.colour,
        n_mels=options.model.n_mels,
    )
    if data.video_norm_value is not None:
        scale = data.video_norm_value / 255.0
        config = replace(config, face_mean=(0.0,) * 3, face_std=(scale,) * 3)
    return config


def _train(experiment: Experiment) -> None:
    """Fit, keeping the best weights in the run folder."""
    options, folder = experiment.options, experiment.folder
    validate = experiment.has("validation") and not options.train.no_val
    if hasattr(experiment.model, "fit_combination"):
        _fit_combination(experiment)
        return
    _start_from_pretrained(experiment)
    train_loader = experiment.loader("training", train=True)
    state = build_fit(
        experiment.model,
        ClassificationLoss(options.train.label_smoothing),
        replace(options.train, amp=_precision(options.train.amp, experiment.device)),
        experiment.device,
        len(train_loader),
    )
    if options.train.resume_path:
        load_state(state, folder)
    experiment.say(_describe(experiment, train_loader.dataset))
    val_loader = experiment.loader("validation") if validate else None
    _open_folder(experiment)
    fit(
        state,
        train_loader,
        val_loader,
        folder,
        save_best=lambda s, scores: _save(experiment, s, scores),
        say=experiment.say,
    )
    write_figure(plot_learning_curves(state.log), folder / "learning_curves.png")


def _open_folder(experiment: Experiment) -> None:
    """Made once data and model are known to go together, so a mistake leaves nothing behind."""
    experiment.folder.mkdir(parents=True, exist_ok=True)
    write_json(experiment.options.to_dict(), experiment.folder / "opts.json")


def _precision(wanted: str, device: torch.device) -> str:
    """On the processor 16 bits are slower than 32 for these models, so `auto` leaves them off."""
    if wanted == "auto":
        return "bf16" if device.type == "cuda" else "off"
    return wanted


def _start_from_pretrained(experiment: Experiment) -> None:
    train = experiment.options.train
    for path in train.pretrain_path:
        report = load_pretrained(experiment.model, Path(path))
        experiment.say(f"{path}: {report}")
        for difference in _input_differences(experiment, load_checkpoint(Path(path))):
            experiment.say(f"note: {path} was trained otherwise: {difference}")
        if train.freeze_pretrained:
            part = experiment.model.get_submodule(report.prefix.rstrip("."))
            for name, parameter in part.named_parameters():
                parameter.requires_grad &= name not in report.matched


def _input_differences(experiment: Experiment, start: Checkpoint) -> list[str]:
    """In what a pretrained part saw or heard otherwise than this run will."""
    entries = {"face": FACE, "speech": SPEECH}
    names = tuple(name for modality in start.model.inputs for name in entries[modality])
    return start.clip_config.differences(experiment.checkpoint.clip_config, names)


def _describe(experiment: Experiment, dataset: Any) -> str:
    model, train = experiment.model, experiment.options.train
    count = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    names = ", ".join(experiment.checkpoint.class_names)
    return (
        f"{experiment.options.model.model}: {count:,} parameters, {trained:,} trained, on "
        f"{len(dataset.records)} records ({names}), {train.n_epochs} epochs on {experiment.device}"
    )


def _fit_combination(experiment: Experiment) -> None:
    """Parts that are trained already: what joins them is fitted on validation predictions."""
    if not experiment.has("validation"):
        raise ValueError("the weights of a late fusion are fitted on records of validation")
    predictions = predict(experiment.model, experiment.loader("validation"), experiment.device)
    _open_folder(experiment)
    experiment.model.cpu().fit_combination(predictions.outputs, predictions.targets)  # type: ignore[operator]
    scores = evaluate(predictions, experiment.checkpoint.class_names)
    _write_best(experiment, experiment.model, {"validation": scores})


def _save(experiment: Experiment, state: Fit, scores: dict[str, Any]) -> None:
    _write_best(
        experiment, state.evaluated_model, {"epoch": state.epoch, "validation": scores or None}
    )


def _write_best(experiment: Experiment, model: EmotionModel, info: dict[str, Any]) -> None:
    info = {**_provenance(experiment), **info}
    checkpoint = replace(experiment.checkpoint, model=model, info=info)
    save_checkpoint(checkpoint, experiment.folder / "model_best.safetensors")


def _provenance(experiment: Experiment) -> dict[str, Any]:
    """What the weights saw: the records of training, and all that pretrained parts saw."""
    used = [r for r in [*experiment.records, *experiment.lenders] if r.subset == "training"]
    corpora = {record.dataset or "own" for record in used}
    own = {
        "corpora": corpora,
        "licence": [f"{name}: {_licence_of(name)}" for name in corpora],
        "training_speakers": {record.speaker for record in used if record.speaker},
    }
    started_from = [load_checkpoint(Path(p)).info for p in experiment.options.train.pretrain_path]
    return merge_provenance([own, experiment.checkpoint.info, *started_from])


def _licence_of(corpus: str) -> str:
    return CORPORA[corpus].licence if corpus in CORPORA else "not stated"


def _report(experiment: Experiment) -> None:
    """Scores, predictions and confusion of validation and of the subset asked for."""
    wanted = ["validation", _SUBSETS.get(experiment.options.train.test_subset, "")]
    names = experiment.checkpoint.class_names
    results: dict[str, Any] = {}
    for subset in [name for name in dict.fromkeys(wanted) if name and experiment.has(name)]:
        loader = experiment.loader(subset)
        predictions = predict(experiment.model, loader, experiment.device)
        results[subset] = evaluate(predictions, names)
        records = loader.dataset.records  # type: ignore[attr-defined]
        write_predictions(
            predictions, records, names, experiment.folder / f"predictions_{subset}.csv"
        )
        log_p, labels, _ = predictions.by_clip()
        figure = plot_confusion(confusion_matrix(log_p, labels), names)
        write_figure(figure, experiment.folder / f"confusion_{subset}.png")
        experiment.say(_score_line(subset, results[subset]))
    write_json(results, experiment.folder / "metrics.json")


def _score_line(subset: str, scores: dict[str, Any]) -> str:
    recalls = ", ".join(f"{name} {value:.2f}" for name, value in scores["recall"].items())
    return (
        f"{subset}: accuracy {scores['accuracy']:.3f}, UAR {scores['uar']:.3f} over "
        f"{scores['clips']} clips (by window {scores['windows']['accuracy']:.3f}); {recalls}"
    )
