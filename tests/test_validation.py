"""What a model says of windows becomes scores and tables of clips, in the order of the records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from datasets.annotations import Record
from evaluation.predictions import read_predictions, write_predictions
from media.adaptation import VOICE_SECONDS
from models import build_model
from models.registry import EmotionModel
from validation import (
    Predictions,
    clip_names,
    clip_table,
    evaluate,
    predict,
    running_voices,
    window_table,
)

NAMES = ("happy", "sad")
CPU = torch.device("cpu")


class Echo(EmotionModel):
    """Gives as logits the mean of the speech that exists, and counts what it was asked."""

    inputs = ("speech", "face")

    def __init__(self) -> None:
        super().__init__()
        self.training_when_asked: list[bool] = []

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        self.training_when_asked.append(self.training)
        speech = inputs["speech"] * inputs["speech_mask"][:, None]
        return {"logits": speech.sum(dim=2), "speech_logits": speech[..., 0], "gate_speech": speech}


def batch(logits: list[list[float]], records: list[int], **changes: Any) -> dict[str, Any]:
    """Samples of one step of sound, which `Echo` gives back as logits."""
    count = len(logits)
    inputs = {
        "speech": torch.tensor(logits)[..., None],
        "speech_mask": torch.ones(count, 1, dtype=torch.bool),
        "face": torch.ones(count, 1, 3, 8, 8),
        "face_mask": torch.ones(count, 1, dtype=torch.bool),
    }
    labels = torch.tensor([record % 2 for record in records])
    starts = torch.tensor([float(records[:i].count(r)) for i, r in enumerate(records)])
    return {
        "inputs": inputs | changes,
        "target": torch.eye(2)[labels],
        "label": labels,
        "record": torch.tensor(records),
        "start": starts,
        "end": starts + 1.0,
    }


def made(logits: list[list[float]], records: list[int], **changes: Any) -> Predictions:
    """Predictions without a model."""
    labels = torch.tensor([record % 2 for record in records])
    values: dict[str, Any] = {
        "outputs": {"logits": torch.tensor(logits)},
        "targets": torch.eye(2)[labels],
        "labels": labels,
        "records": torch.tensor(records),
        "spans": torch.tensor([[float(i), i + 1.0] for i in range(len(records))]),
    }
    return Predictions(**(values | changes))


def record(name: str, label: str, **known: Any) -> Record:
    return Record(video=f"{name}.mp4", audio="", label=label, **known)


def test_batches_are_joined_in_their_order_whatever_their_size() -> None:
    logits = [[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]
    whole = predict(Echo(), [batch(logits, [0, 0, 1])], CPU)
    apart = predict(Echo(), [batch(logits[:1], [0]), batch(logits[1:], [0, 1])], CPU)
    assert torch.equal(whole.outputs["logits"], torch.tensor(logits))
    assert torch.equal(apart.outputs["logits"], whole.outputs["logits"])
    assert torch.equal(apart.records, whole.records)
    assert set(whole.outputs) == {"logits", "speech_logits"}, "gates are no head"


def test_a_model_is_asked_in_evaluation_mode_without_gradients() -> None:
    model = Echo().train()
    found = predict(model, [batch([[1.0, 0.0]], [0])], CPU)
    assert model.training_when_asked == [False]
    assert not found.outputs["logits"].requires_grad


def test_two_passes_over_the_same_samples_are_equal() -> None:
    torch.manual_seed(0)
    model = build_model("speech_cnn", num_classes=2, dropout=0.5)
    speech = torch.randn(3, 64, 50)
    one = batch([[0.0, 0.0]] * 3, [0, 1, 2])
    one["inputs"] = {"speech": speech, "speech_mask": torch.ones(3, 50, dtype=torch.bool)}
    first, second = predict(model, [one], CPU), predict(model, [one], CPU)
    assert torch.equal(first.outputs["logits"], second.outputs["logits"])
    assert first.features is not None
    assert second.features is not None
    assert torch.equal(first.features, second.features)


def test_a_window_that_holds_nothing_is_left_out_where_its_record_has_another() -> None:
    nothing = torch.tensor([[True], [False], [False]])
    given = batch([[1.0, 0.0], [9.0, 0.0], [0.0, 1.0]], [0, 0, 1])
    given["inputs"] |= {"speech_mask": nothing, "face_mask": nothing}
    found = predict(Echo(), [given], CPU)
    assert found.records.tolist() == [0, 1], "record 1 has no other window: it keeps this one"
    assert found.spans.tolist() == [[0.0, 1.0], [0.0, 1.0]]
    assert found.clips == [0, 1]


def test_a_window_that_holds_one_modality_stays() -> None:
    given = batch([[1.0, 0.0], [2.0, 0.0]], [0, 0])
    given["inputs"]["speech_mask"] = torch.tensor([[True], [False]])
    assert len(predict(Echo(), [given], CPU).records) == 2


def test_a_masked_modality_is_zero_for_the_model_and_untouched_in_the_batch() -> None:
    given = batch([[1.0, 0.0]], [0])
    deaf = predict(Echo(), [given], CPU, without="speech")
    assert deaf.outputs["logits"].tolist() == [[0.0, 0.0]]
    assert given["inputs"]["speech"].flatten().tolist() == [1.0, 0.0]
    assert len(deaf.records) == 1, "the window held the modality before it was masked"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_outputs_that_are_not_finite_are_refused(value: float) -> None:
    given = batch([[1.0, 0.0], [value, 0.0]], [0, 1])
    with pytest.raises(ValueError, match=r"1 of 2 windows .* not finite"):
        predict(Echo(), [given], CPU)


def test_a_clip_is_the_normalised_mean_of_its_windows_log_probabilities() -> None:
    found = made([[2.0, 0.0], [0.0, 1.0], [0.0, 3.0]], [0, 0, 3])
    mean = (torch.tensor([2.0, 0.0]).log_softmax(0) + torch.tensor([0.0, 1.0]).log_softmax(0)) / 2
    assert found.clips == [0, 3], "records without windows have no row"
    assert np.allclose(found.by_clip()[0], mean.log_softmax(0).numpy())
    assert np.allclose(np.exp(found.by_clip()).sum(axis=1), 1.0)
    assert found.labels_by_clip().tolist() == [0, 1]


def test_clips_come_in_the_order_of_records_not_of_windows() -> None:
    found = made([[0.0, 5.0], [5.0, 0.0]], [1, 0])
    assert found.clips == [0, 1]
    assert found.by_clip().argmax(axis=1).tolist() == [0, 1]


def test_classes_are_scored_by_clip_and_by_window() -> None:
    # Record 0 is happy: one window wrong, two right. Record 1 is sad, and wrong.
    found = made([[0.0, 1.0], [3.0, 0.0], [3.0, 0.0], [2.0, 0.0]], [0, 0, 0, 1])
    scores = evaluate(found, NAMES)
    assert (scores["clips"], scores["windows"]["windows"]) == (2, 4)
    assert (scores["accuracy"], scores["uar"]) == (0.5, 0.5)
    assert scores["windows"]["accuracy"] == 0.5
    assert scores["windows"]["uar"] == pytest.approx((2 / 3 + 0) / 2)
    assert scores["recall"] == {"happy": 1.0, "sad": 0.0}
    log_p = found.outputs["logits"].log_softmax(dim=-1)
    assert scores["loss"] == pytest.approx(-float(log_p[torch.arange(4), found.labels].mean()))


def test_a_class_without_a_clip_is_left_out_of_the_mean() -> None:
    scores = evaluate(made([[2.0, 0.0], [2.0, 0.0]], [0, 2]), NAMES)
    assert scores["uar"] == 1.0
    assert scores["recall"] == {"happy": 1.0}


def test_labels_and_values_are_scored_by_their_own_measures() -> None:
    logits, targets = [[4.0, -4.0], [4.0, 4.0]], torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    labels = evaluate(made(logits, [0, 1], targets=targets, task="multilabel"), NAMES)
    assert labels["exact_match"] == 0.5
    values = evaluate(made(logits, [0, 1], targets=targets, task="regression"), NAMES)
    assert values["mae"] == pytest.approx((3 + 3 + 4 + 4) / 4)
    assert values["loss"] == pytest.approx((9 + 9 + 16 + 16) / 4)


def test_names_of_clips_are_unique_and_tell_the_start_where_files_repeat() -> None:
    records = [record("a", "happy"), record("b", "sad", start=1.5), record("b", "sad", start=3.0)]
    assert clip_names(records) == ["a.mp4", "b.mp4@1.5", "b.mp4@3"]
    assert clip_names([record("a", "happy")] * 2) == ["a.mp4@0", "a.mp4@0#2"]


def test_a_table_of_clips_is_read_as_it_was_made(tmp_path: Path) -> None:
    records = [
        record("a", "happy", speaker="eve", dataset="made", extra={"gender": "f", "p_x": "1"}),
        record("b", "sad", speaker="", dataset="made", extra={"gender": "", "take": ""}),
    ]
    path = tmp_path / "predictions_testing.csv"
    table = clip_table(made([[2.0, 0.0], [1.0, 0.0]], [0, 1]), records, NAMES, path)
    write_predictions(table)
    again = read_predictions(path)
    assert path.read_text().splitlines()[0] == "clip,speaker,target,dataset,gender,p_happy,p_sad"
    assert again.clip.tolist() == ["a.mp4", "b.mp4"]
    assert again.speaker.tolist() == ["eve", ""]
    assert again.groups["gender"].tolist() == ["f", ""]
    assert again.targets.tolist() == table.targets.tolist() == [0, 1]
    assert np.allclose(again.scores, table.scores, atol=1e-6)
    assert again.soft is None
    assert again.span is None


def test_a_table_of_windows_has_their_spans(tmp_path: Path) -> None:
    records = [record("a", "happy"), record("b", "sad")]
    path = tmp_path / "windows_testing.csv"
    found = made([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [1, 0, 0])
    write_predictions(window_table(found, records, NAMES, path))
    again = read_predictions(path)
    assert again.clip.tolist() == ["b.mp4", "a.mp4", "a.mp4"], "in the order of the windows"
    assert again.span is not None
    assert again.span.tolist() == [[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]]


def test_votes_are_kept_beside_the_label_of_the_record(tmp_path: Path) -> None:
    records = [record("a", "sad", soft={"happy": 0.6, "sad": 0.4})]
    votes = torch.tensor([[0.6, 0.4]])
    path = tmp_path / "predictions_testing.csv"
    write_predictions(clip_table(made([[0.0, 1.0]], [0], targets=votes), records, NAMES, path))
    again = read_predictions(path)
    assert again.targets.tolist() == [1], "the record's own label, not the most voted class"
    assert again.soft is not None
    assert np.allclose(again.soft, [[0.6, 0.4]], atol=1e-4)


@pytest.mark.parametrize(("task", "prefix"), [("multilabel", "p_"), ("regression", "y_")])
def test_tables_of_other_tasks_hold_a_target_a_column(
    tmp_path: Path, task: str, prefix: str
) -> None:
    targets = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    found = made([[0.5, -0.5], [0.25, 1.0]], [0, 1], targets=targets, task=task)
    path = tmp_path / "predictions_testing.csv"
    write_predictions(clip_table(found, [record("a", ""), record("b", "")], NAMES, path))
    again = read_predictions(path)
    assert again.task == task
    assert f"target_happy,target_sad,dataset,{prefix}happy,{prefix}sad" in path.read_text()
    assert again.targets.tolist() == targets.tolist()
    assert np.allclose(again.scores, found.scores.numpy(), atol=1e-6)


class Voice(EmotionModel):
    """Hears the mean of the speech, and gives as logits how it differs from the offset."""

    inputs = ("speech",)

    def mean_voice(self) -> Tensor:
        return torch.tensor([1.0, 0.0])

    @property
    def voice_part(self) -> Voice:
        return self

    def pooled(self, speech: Tensor, speech_mask: Tensor | None = None) -> Tensor:
        return speech.mean(dim=2)

    def forward(self, speech: Tensor, **others: Tensor) -> dict[str, Tensor]:
        return {"logits": speech.mean(dim=2) - others.get("voice_offset", 0)}


def test_a_voice_is_known_from_the_speakers_earlier_records_alone() -> None:
    seconds = 20.0  # that each record has, so that one is enough
    batches = [batch([[3.0, 0.0], [5.0, 0.0], [9.0, 9.0], [7.0, 0.0]], [0, 1, 2, 3])]
    batches[0]["end"] = batches[0]["start"] + seconds
    offsets = running_voices(Voice(), batches, CPU, ["anna", "anna", "", "anna"], seed=0)
    assert offsets is not None
    order = np.random.default_rng(0).permutation([0, 1, 3])
    heard = {0: 3.0, 1: 5.0, 3: 7.0}
    weight = seconds / (VOICE_SECONDS + seconds)
    assert offsets[order[0]].tolist() == [0.0, 0.0], "nothing came before"
    assert float(offsets[order[1], 0]) == pytest.approx((heard[order[0]] - 1) * weight)
    both = heard[order[0]] + heard[order[1]] - 2
    expected = both * seconds / (VOICE_SECONDS + 2 * seconds)
    assert float(offsets[order[2], 0]) == pytest.approx(expected)
    assert offsets[2].tolist() == [0.0, 0.0], "of nobody known"


def test_each_window_is_given_the_offset_of_its_record() -> None:
    offsets = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    found = predict(Voice(), [batch([[4.0, 4.0]] * 3, [0, 1, 1])], CPU, voice_offsets=offsets)
    assert found.outputs["logits"].tolist() == [[3.0, 4.0], [4.0, 2.0], [4.0, 2.0]]


def test_silence_teaches_nothing_of_a_voice() -> None:
    silent = batch([[50.0, 0.0], [3.0, 0.0]], [0, 1])
    silent["inputs"]["speech_mask"][0] = False
    silent["end"] = silent["start"] + 20.0
    offsets = running_voices(Voice(), [silent], CPU, ["anna", "anna"], seed=0)
    assert offsets is not None
    assert float(offsets.abs().max()) <= 2.0 * 20 / (20 + VOICE_SECONDS) + 1e-6


def test_a_model_that_hears_no_voice_has_no_offsets() -> None:
    assert running_voices(Echo(), [batch([[1.0, 0.0]], [0])], CPU, ["anna"], seed=0) is None
