"""A timeline comes back from its files, says what it knows, and refuses what is broken."""

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from system.files import replacing
from timeline.csv_format import write_csv
from timeline.formats import read_timeline
from timeline.json_format import write_json
from timeline.row import Task, TimelineRow
from timeline.summary import summarise
from timeline.table import Timeline, format_time

CLASS_NAMES = ("neutral", "happy", "sad")
HAPPY, SAD = np.array([0.1, 0.7, 0.2]), np.array([0.25, 0.15, 0.6])


def _row(start: float, end: float, probabilities: np.ndarray | None) -> TimelineRow:
    found = probabilities is not None
    return TimelineRow(
        start=start,
        end=end,
        partial=end - start < 1.0,
        face_id=0 if found else None,
        face_share=0.9 if found else 0.0,
        modalities="audio+video" if found else "none",
        probabilities=probabilities,
    )


@pytest.fixture
def timeline() -> Timeline:
    """Happy for 2 s, nothing for 1 s, sad for 1.4 s."""
    rows = (
        _row(0.0, 1.0, HAPPY),
        _row(1.0, 2.0, np.array([0.2, 0.5, 0.3])),
        _row(2.0, 3.0, None),
        _row(3.0, 4.0, SAD),
        _row(4.0, 4.4, SAD),
    )
    checkpoint = {"name": "small", "architecture": "late_fusion", "sha256": "ab12"}
    return Timeline(rows, CLASS_NAMES, "talk, 2.mp4", 4.4, 1.0, 1.0, checkpoint)


def _overlapping(window: float = 2.0, hop: float = 0.5, windows: int = 5) -> Timeline:
    rows = tuple(_row(i * hop, i * hop + window, HAPPY) for i in range(windows))
    return Timeline(rows, CLASS_NAMES, "a.mp4", rows[-1].end, window, hop)


def test_csv_has_exactly_this_header_and_these_decimals(timeline: Timeline, tmp_path: Path) -> None:
    write_csv(timeline, tmp_path / "out.csv")
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == (
        "start,end,partial,face_id,face_share,modalities,dominant,confidence,"
        "p_neutral,p_happy,p_sad"
    )
    assert lines[1] == ("0.000,1.000,false,0,0.9000,audio+video,happy,0.7000,0.1000,0.7000,0.2000")
    assert lines[5].startswith("4.000,4.400,true,")


def test_a_window_without_modalities_has_empty_cells_and_no_made_up_numbers(
    timeline: Timeline, tmp_path: Path
) -> None:
    write_csv(timeline, tmp_path / "out.csv")
    write_json(timeline, tmp_path / "out.json")
    assert (tmp_path / "out.csv").read_text().splitlines()[3] == (
        "2.000,3.000,false,,0.0000,none,,,,,"
    )
    row = json.loads((tmp_path / "out.json").read_text())["rows"][2]
    assert (row["face_id"], row["dominant"], row["confidence"]) == (None, None, None)
    assert row["probabilities"] is None
    table = timeline.to_pandas()
    assert table.loc[2, ["face_id", "dominant", "confidence", "p_happy"]].isna().all()


def test_json_names_its_format_units_and_checkpoint(timeline: Timeline, tmp_path: Path) -> None:
    write_json(timeline, tmp_path / "out.json")
    content = json.loads((tmp_path / "out.json").read_text())
    assert (content["format"], content["version"]) == ("emofuse-timeline", 1)
    assert content["units"] == {"time": "seconds", "probabilities": "probability"}
    assert content["media"] == "talk, 2.mp4"
    assert content["checkpoint"]["sha256"] == "ab12"
    assert content["rows"][0]["probabilities"]["happy"] == 0.7


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_a_timeline_comes_back_from_its_file(
    timeline: Timeline, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"out{suffix}"
    (write_csv if suffix == ".csv" else write_json)(timeline, path)
    again = read_timeline(path)
    assert again.to_pandas().equals(timeline.to_pandas())
    assert (again.duration, again.window_seconds, again.hop_seconds) == (4.4, 1.0, 1.0)
    assert again.class_names == CLASS_NAMES


def test_csv_rows_sum_to_one_within_rounding(tmp_path: Path) -> None:
    values = np.random.default_rng(0).dirichlet(np.full(9, 0.3), size=50)
    rows = tuple(_row(float(i), i + 1.0, p) for i, p in enumerate(values))
    names = tuple(f"class_{i}" for i in range(9))
    write_csv(Timeline(rows, names, "a.mp4", 50.0, 1.0, 1.0), tmp_path / "out.csv")
    sums = read_timeline(tmp_path / "out.csv").probabilities().sum(axis=1)
    assert np.abs(sums - 1).max() < 9 * 0.5e-4


def test_rows_that_leave_a_gap_are_refused(timeline: Timeline) -> None:
    timeline.check()
    with pytest.raises(ValueError, match=r"no row covers 2\.000 s to 3\.000 s"):
        replace(timeline, rows=timeline.rows[:2] + timeline.rows[3:]).check()
    with pytest.raises(ValueError, match=r"rows end at 3\.000 s, the recording at 4\.400 s"):
        replace(timeline, rows=timeline.rows[:3]).check()
    with pytest.raises(ValueError, match="no row covers"):
        replace(timeline, rows=timeline.rows[1:]).check()
    with pytest.raises(ValueError, match="no rows"):
        replace(timeline, rows=()).check()


@pytest.mark.parametrize(
    "values",
    [None, np.array([0.5, 0.5]), np.array([0.5, 0.6, 0.2]), np.array([1.2, -0.4, 0.2])],
    ids=["absent", "too few", "sum above 1", "negative"],
)
def test_probabilities_that_are_none_are_refused(
    timeline: Timeline, values: np.ndarray | None
) -> None:
    broken = replace(timeline.rows[0], probabilities=values)
    with pytest.raises(ValueError, match="row 1"):
        replace(timeline, rows=(broken, *timeline.rows[1:])).check()


def test_borders_are_the_windows_where_these_do_not_overlap(timeline: Timeline) -> None:
    np.testing.assert_allclose(timeline.borders(), [0.0, 1.0, 2.0, 3.0, 4.0, 4.4])


def test_overlapping_windows_stand_for_one_hop_around_their_middle() -> None:
    np.testing.assert_allclose(_overlapping().borders(), [0.0, 1.25, 1.75, 2.25, 2.75, 4.0])


def test_stretches_join_neighbours_and_weigh_confidence_by_time(timeline: Timeline) -> None:
    parts = timeline.segments()
    assert [(p.start, p.end, p.dominant) for p in parts] == [
        (0.0, 2.0, "happy"),
        (2.0, 3.0, None),
        (3.0, 4.4, "sad"),
    ]
    assert parts[0].confidence == pytest.approx(0.6)
    assert parts[1].confidence is None


def test_summary_names_shares_modalities_and_longest_stretches(timeline: Timeline) -> None:
    text = summarise(timeline)
    assert text.startswith("talk, 2.mp4: 0:04.4\n")
    assert "5 (face and sound 4, face only 0, sound only 0, nothing 1)" in text
    assert "  happy      45%  0.41" in text  # 2 of 4.4 s; mean over the 3.4 s that hold something
    assert text.index("happy  ") < text.index("sad  ") < text.index("neutral  ")
    assert "  0:00-0:02 happy (0.60)" in text


def test_summary_of_a_recording_with_nothing_in_it_says_so() -> None:
    empty = Timeline((_row(0.0, 1.0, None),), CLASS_NAMES, "a.mp4", 1.0, 1.0, 1.0)
    assert "Nothing was recognised" in summarise(empty)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (12, "0:12"), (59.96, "1:00"), (75.5, "1:15.5"), (3600, "1:00:00")],
)
def test_times_read_as_clocks(seconds: float, text: str) -> None:
    assert format_time(seconds) == text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", ""),
        ("a.csv", "start,end\n0,1\n"),
        ("a.csv", "start,end,partial,face_id,face_share,modalities,dominant,confidence,p_a\n"),
        ("a.csv", "{header}\n0,1,false,,0,none,,,,\n0,"),
        ("a.csv", "{header}\n0,1,false,0,1,audio+video,a,nan,nan,nan\n"),
        ("a.csv", "{header}\n0,1,perhaps,0,1,audio+video,a,1,1,0\n"),
        ("a.json", ""),
        ("a.json", "[]"),
        ("a.json", '{"format": "emofuse-timeline", "version": 2}'),
        ("a.json", '{"format": "emofuse-timeline", "version": 1, "class_names": ["a"]}'),
        ("a.txt", "0,1"),
    ],
)
def test_a_broken_file_gives_one_clear_error(tmp_path: Path, name: str, content: str) -> None:
    header = "start,end,partial,face_id,face_share,modalities,dominant,confidence,p_a,p_b"
    path = tmp_path / name
    path.write_text(content.replace("{header}", header))
    with pytest.raises(ValueError, match=name) as caught:
        read_timeline(path)
    assert "\n" not in str(caught.value)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")
    with suppress(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half of the new")
        raise RuntimeError
    assert [file.name for file in tmp_path.iterdir()] == ["out.csv"]
    assert path.read_text() == "old"


def _measured(timeline: Timeline) -> Timeline:
    """With the columns that are only there when asked for."""
    rows = []
    for row in timeline.rows:
        known = row.probabilities is not None
        measures = {"contribution_face": 0.25 if known else None, "gate_face": None}
        measures |= {"adapted": 1.0, "speech_fraction": 0.5}
        rows.append(replace(row, uncertain=not known, measures=measures))
    return replace(timeline, rows=tuple(rows))


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_columns_that_were_asked_for_come_back_from_a_file(
    timeline: Timeline, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"out{suffix}"
    measured = _measured(timeline)
    (write_csv if suffix == ".csv" else write_json)(measured, path)
    again = read_timeline(path)
    assert [row.uncertain for row in again.rows] == [False, False, True, False, False]
    assert again.measures == ["contribution_face", "gate_face", "adapted", "speech_fraction"]
    assert again.to_pandas().equals(measured.to_pandas())


def test_columns_that_were_asked_for_stand_after_the_classes(
    timeline: Timeline, tmp_path: Path
) -> None:
    write_csv(_measured(timeline), tmp_path / "out.csv")
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0].endswith(
        "p_neutral,p_happy,p_sad,uncertain,contribution_face,gate_face,adapted,speech_fraction"
    )
    assert lines[1].endswith("0.1000,0.7000,0.2000,false,0.2500,,1.0000,0.5000")
    assert lines[3] == "2.000,3.000,false,,0.0000,none,,,,,,true,,,1.0000,0.5000"


def test_rows_of_different_columns_are_refused(timeline: Timeline) -> None:
    measured = _measured(timeline)
    rows = (*measured.rows[:-1], timeline.rows[-1])
    with pytest.raises(ValueError, match="row 5 has other columns than the first"):
        replace(measured, rows=rows).check()


def _of_task(timeline: Timeline, task: Task) -> Timeline:
    """Rows that are no distribution: labels of their own, or values."""
    values = np.array([0.9, 0.8, 0.1]) if task == "multilabel" else np.array([-20.0, 55.5, 3.0])
    rows = [
        replace(r, probabilities=r.probabilities if r.probabilities is None else values)
        for r in timeline.rows
    ]
    return replace(timeline, rows=tuple(rows), task=task)


@pytest.mark.parametrize("suffix", [".csv", ".json"])
@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_labels_and_values_come_back_from_a_file(
    timeline: Timeline, tmp_path: Path, suffix: str, task: Task
) -> None:
    path = tmp_path / f"out{suffix}"
    other = _of_task(timeline, task)
    (write_csv if suffix == ".csv" else write_json)(other, path)
    again = read_timeline(path)
    assert again.task == task
    assert again.to_pandas().equals(other.to_pandas())


def test_values_have_no_dominant_one_and_columns_of_their_own(
    timeline: Timeline, tmp_path: Path
) -> None:
    write_csv(_of_task(timeline, "regression"), tmp_path / "out.csv")
    write_json(_of_task(timeline, "regression"), tmp_path / "out.json")
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0].endswith("dominant,confidence,y_neutral,y_happy,y_sad")
    assert lines[1].endswith("audio+video,,,-20.0000,55.5000,3.0000")
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["task"] == "regression"
    assert content["rows"][0]["values"] == {"neutral": -20.0, "happy": 55.5, "sad": 3.0}
    assert "probabilities" not in content["rows"][0]


def test_the_strongest_label_is_the_dominant_one(timeline: Timeline) -> None:
    other = _of_task(timeline, "multilabel")
    assert (other.dominant(other.rows[0]), other.confidence(other.rows[0])) == ("neutral", 0.9)
    broken = replace(other.rows[0], probabilities=np.array([0.5, 1.2, 0.0]))
    with pytest.raises(ValueError, match="row 1 has a probability that is not within 0 to 1"):
        replace(other, rows=(broken, *other.rows[1:])).check()


def test_a_timeline_written_before_there_were_tasks_is_still_read(
    timeline: Timeline, tmp_path: Path
) -> None:
    write_json(timeline, tmp_path / "out.json")
    content = json.loads((tmp_path / "out.json").read_text())
    del content["task"]
    (tmp_path / "old.json").write_text(json.dumps(content))
    assert read_timeline(tmp_path / "old.json").task == "classification"


def test_summaries_of_labels_and_values_do_not_share_out_the_time(timeline: Timeline) -> None:
    labels = summarise(_of_task(timeline, "multilabel"))
    assert "  neutral    77%  0.90" in labels  # 3.4 of 4.4 s
    assert "  happy      77%  0.80" in labels
    values = summarise(_of_task(timeline, "regression"))
    assert "  neutral       -20       -20       -20" in values
    assert "Longest" not in labels + values
    assert "Uncertain: 1 windows" in summarise(_measured(timeline))
