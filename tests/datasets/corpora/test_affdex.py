"""AFFDEX exports in the forms that iMotions writes them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.annotations import Record, read_annotations
from datasets.corpora.affdex import (
    AffdexOptions,
    label_windows,
    read_records,
    resample,
)
from datasets.imotions import Export, read_export, read_layout
from datasets.prepare import main
from datasets.store import ClipStore
from tests.conftest import WriteMedia

EVENTS = ("Row", "Timestamp", "EventSource", "SlideEvent", "StimType", "Duration")
EVENTS += ("CollectionPhase", "SourceStimuliName", "EventSource", "SampleNumber")
EMOTIONS = ("Anger", "Contempt", "Disgust", "Fear", "Joy", "Sadness", "Surprise")
OTHERS = ("Engagement", "Valence", "Sentimentality", "Confusion", "Neutral", "Attention")
TAIL = ("Brow Furrow", "Blink", "BlinkRate", "Pitch", "Interocular Distance")
TAIL += ("Respondent Annotations active",)
HEADER = (*EVENTS, *EMOTIONS, *OTHERS, *TAIL)
UUID = "0f3c1c2e-7a0b-4a53-9b1e-6d0f2f0c9a11"
OPTIONS = AffdexOptions()


def _about(person: str, delimiter: str, mark: str) -> list[str]:
    rows = [
        ("Study name", "GENEX"),
        ("Respondent Name", f"{person} {UUID}"),
        ("Respondent Age", "24"),
        ("Respondent Gender", "FEMALE"),
        ("Respondent Group", "Gruppe Köln"),
        ("iMotions version", "10.0.37173.5"),
        ("Recording time", "05/12/2023 10:31:07.123 +01:00"),
        ("Sensor", "Affectiva AFFDEX, Manufacturer: Affectiva"),
        *((f"Setting {i}", str(i)) for i in range(16)),
    ]
    return [mark + delimiter.join(row) for row in rows]


def _sample(row: int, milliseconds: float, scores: dict[str, float]) -> list[str]:
    cells = dict.fromkeys(HEADER, "")
    cells |= {"Row": str(row), "Timestamp": f"{milliseconds:g}", "SampleNumber": str(row)}
    cells |= {name: f"{scores.get(name, 1.5):g}" for name in (*EMOTIONS, *OTHERS, *TAIL[:-1])}
    values = [cells[name] for name in HEADER]
    values[2], values[8] = "Affectiva AFFDEX", "3"  # two columns are called EventSource
    return values


def _event(row: int, milliseconds: float) -> list[str]:
    """A row of a slide event or another sensor: nothing of AFFDEX."""
    return [str(row), f"{milliseconds:g}", "SlideEvent", "StartMedia", *[""] * (len(HEADER) - 4)]


def _scores(seconds: float) -> dict[str, float]:
    """Joy for 2 s, then nothing much for 1 s, then contempt; attention and valence throughout."""
    scores = {"Attention": 90.0, "Valence": -40.0, "Engagement": 55.5}
    return scores | ({"Joy": 80.25} if seconds < 2 else {"Contempt": 65.0} if seconds >= 3 else {})


def _rows(seconds: float = 4.0, gap: tuple[float, float] = (9.0, 9.0)) -> list[list[str]]:
    rows = [_event(1, 0.0)]
    for index in range(round(seconds * 25)):
        time = index / 25
        rows.append(_event(2 * index + 2, 1000 * time))
        missing = gap[0] <= time < gap[1]
        row = _sample(2 * index + 3, 1000 * time, _scores(time))
        rows.append([*row[:10], *[""] * (len(row) - 10)] if missing else row)
    return rows


def _write(
    path: Path,
    person: str = "P01",
    rows: Sequence[Sequence[str]] = (),
    delimiter: str = ",",
    encoding: str = "utf-8-sig",
    mark: str = "",
    header: Sequence[str] = HEADER,
    decimal: str = ".",
) -> Path:
    table = [[cell.replace(".", decimal) for cell in row] for row in rows or _rows()]
    lines = [*_about(person, delimiter, mark), delimiter.join(header)]
    lines += [delimiter.join(row) for row in table]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("\r\n".join([*lines, ""]).encode(encoding))
    return path


def _labels(records: Sequence[Record]) -> list[str]:
    return [record.label for record in records]


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"mark": "#"},
        {"delimiter": "\t"},
        {"delimiter": "\t", "decimal": ","},
        {"delimiter": ";", "decimal": ","},
        {"encoding": "latin-1"},
        {"encoding": "utf-8"},
        {"encoding": "utf-16", "delimiter": "\t"},
        {"header": [n.upper() if n in EMOTIONS else n for n in HEADER]},
        {"header": [f"{n} (Affectiva)" if n in EMOTIONS else n for n in HEADER]},
        {"header": ["Timestamp (ms)" if n == "Timestamp" else n for n in HEADER]},
    ],
    ids=str,
)
def test_every_form_of_an_export_reads_alike(tmp_path: Path, form: dict[str, str]) -> None:
    path = _write(tmp_path / "001_P01.csv", **form)
    layout = read_layout(path)
    assert layout.header_line == 24
    assert layout.about["name"] == f"P01 {UUID}"
    assert layout.about["group"] == "Gruppe Köln"
    export = read_export(path, layout)
    assert export.times == pytest.approx(np.arange(100) / 25)
    assert export.measures["joy"][:50] == pytest.approx(80.25)
    assert export.measures["joy"][50:] == pytest.approx(1.5)
    assert export.measures["valence"] == pytest.approx(-40.0)


def test_windows_of_a_participant_carry_labels(tmp_path: Path) -> None:
    _write(tmp_path / "exports" / "001.csv")
    _write(tmp_path / "exports" / "ExportMerge.csv", "P99")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "P 01_interview.mp4").touch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        records = read_records(tmp_path)
    assert _labels(records) == ["happy", "happy", "neutral", "contempt"]
    assert [(r.start, r.end) for r in records] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    first = records[0]
    assert Path(first.video).name == "P 01_interview.mp4"
    assert (first.speaker, first.dataset) == ("affdex-P01", "affdex")
    assert (first.extra["gender"], first.extra["group"]) == ("female", "Gruppe Köln")
    assert first.extra["coverage"] == "1.00"


def _targets(record: Record) -> dict[str, str]:
    return {n[7:]: value for n, value in record.extra.items() if n.startswith("target_")}


def test_each_task_has_its_own_target_columns(tmp_path: Path) -> None:
    _write(tmp_path / "P01.csv")
    (tmp_path / "P01.mp4").touch()
    assert _targets(read_records(tmp_path)[0]) == {}
    several = read_records(tmp_path, AffdexOptions(task="multilabel"))
    names = ("angry", "contempt", "disgust", "fearful", "happy", "sad", "surprised")
    assert _targets(several[0]) == dict.fromkeys(names, "0") | {"happy": "1"}
    assert _targets(several[3]) == dict.fromkeys(names, "0") | {"contempt": "1"}
    scales = read_records(tmp_path, AffdexOptions(task="regression"))
    assert _targets(scales[0]) == {
        "attention": "0.9000",
        "engagement": "0.5550",
        "valence": "-0.4000",
    }
    assert _labels(several) == _labels(scales) == ["happy", "happy", "neutral", "contempt"]


def test_what_was_not_measured_has_no_target() -> None:
    times = np.arange(100) / 25
    valence = np.where(times < 2, 20.0, np.nan)
    export = Export(times, {"joy": np.full(100, 70.0), "valence": valence})
    windows = label_windows(export, 4.0, AffdexOptions(task="regression"))
    assert [start for start, *_ in windows] == [0, 1], "windows without any target are left out"
    columns = windows[0][3]
    assert columns["target_valence"] == "0.2000"
    assert columns["target_attention"] == columns["target_engagement"] == ""


def test_thresholds_and_windows_are_the_users(tmp_path: Path) -> None:
    _write(tmp_path / "P01.csv")
    (tmp_path / "P01.mp4").touch()
    options = AffdexOptions(
        task="multilabel",
        window_seconds=2.0,
        hop_seconds=1.0,
        threshold=90.0,
        thresholds={"joy": 40.0},
    )
    records = read_records(tmp_path, options)
    assert [(r.start, r.end) for r in records] == [(0, 2), (1, 3), (2, 4)]
    assert set(_labels(records)) == {"neutral"}
    assert [_targets(r)["happy"] for r in records] == ["1", "1", "0"]
    assert len(read_records(tmp_path, AffdexOptions(offset=10.0))) == 4, "as the video starts later"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task": "ranking"}, "unknown task 'ranking'; choose from classification, multilabel, "),
        ({"thresholds": {"happy": 40}}, "unknown emotion 'happy'; choose from anger, "),
        ({"thresholds": {"joy": 40}}, "thresholds by emotion are of multilabel, not of class"),
        ({"threshold": 101}, r"threshold must lie in 0\.\.100, not 101"),
        ({"max_gap": -1}, "max_gap must be 0 or more seconds, not -1"),
        ({"tolerance": float("nan")}, "tolerance must be 0 or more seconds, not nan"),
        ({"min_coverage": 2}, r"min_coverage must lie in 0\.\.1, not 2"),
        ({"fps": 0}, "fps must be positive, not 0"),
        ({"hop_seconds": 2}, "hop of 2 s"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AffdexOptions(**values)


def _prepare(tmp_path: Path, *flags: str, corpus: str = "affdex") -> int:
    arguments = [corpus, "--root", str(tmp_path), "--out", str(tmp_path / "out"), *flags]
    return main([*arguments, "--face_size", "32", "--detector", "whole"])


def test_the_command_line_reaches_targets(tmp_path: Path, write_media: WriteMedia) -> None:
    pictures = [np.full((32, 32, 3), 20 * i, dtype=np.uint8) for i in range(10)]
    for person in ("P01", "P02", "P03"):
        write_media(tmp_path / f"{person}.mp4", pictures, times=[i / 60 for i in range(10)])
        _write(tmp_path / f"{person}.csv", person)
    flags = ("--affdex_thresholds", "joy=90", "contempt=60", "--affdex_tolerance", "0.1")
    flags += ("--affdex_window_seconds", "0.1", "--affdex_hop_seconds", "0.1")
    assert _prepare(tmp_path, "--affdex_task", "multilabel", *flags) == 0
    records = read_annotations(tmp_path / "out" / "manifest.csv")
    assert _targets(records[0])["happy"] == "0"
    assert len(_targets(records[0])) == 7
    store = ClipStore(tmp_path / "out" / "clips")
    assert store.count(records[0].key, "faces") == 5, "of ten pictures at 60 a second"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--affdex_thresholds", "joy"], "expected EMOTION=NUMBER such as joy=40, not 'joy'"),
        (["--affdex_thresholds", "joy=40"], "thresholds by emotion are of multilabel"),
        (["--keep_duplicates"], "--keep_duplicates is of ased, fer2013, speech_corpora only"),
        (["--song"], "--song is of ravdess only, not of affdex"),
    ],
)
def test_flags_that_cannot_be_are_one_line(
    tmp_path: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _prepare(tmp_path, *flags) == 2
    assert message in capsys.readouterr().err


def test_flags_of_affdex_are_refused_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _prepare(tmp_path, "--affdex_threshold", "0", corpus="ravdess") == 2
    assert "--affdex_threshold is of affdex only, not of ravdess" in capsys.readouterr().err


def test_a_missing_face_leaves_its_windows_out(tmp_path: Path) -> None:
    _write(tmp_path / "P01.csv", rows=_rows(gap=(0.9, 2.3)))
    (tmp_path / "P01.mp4").touch()
    records = read_records(tmp_path)
    assert [r.start for r in records] == [0, 2, 3]
    assert float(records[1].extra["coverage"]) == pytest.approx(0.7, abs=0.05)
    with pytest.raises(ValueError, match="no AFFDEX export"):
        read_records(tmp_path / "absent")


def test_who_looks_away_is_as_if_not_there() -> None:
    times = np.arange(100) / 25
    attention = np.where(times < 2, 30.0, 90.0)
    export = Export(times, {"joy": np.full(100, 70.0), "attention": attention})
    assert len(label_windows(export, 4.0, OPTIONS)) == 4
    windows = label_windows(export, 4.0, AffdexOptions(min_attention=50))
    assert [start for start, *_ in windows] == [2, 3]


def test_interpolation_has_limits() -> None:
    times = np.array([0.0, 0.08, 0.5, 0.54])
    values = np.array([0.0, 8.0, 50.0, np.nan])
    grid = np.array([0.04, 0.11, 0.13, 0.3, 0.47, 0.53, 0.6])
    result = resample(times, values, grid, OPTIONS)
    nan = float("nan")
    assert result == pytest.approx([4.0, 8.0, nan, nan, 50.0, 50.0, nan], nan_ok=True)
    wide = resample(times, values, grid, AffdexOptions(max_gap=0.5))
    assert wide[3] == pytest.approx(8 + 42 * 0.22 / 0.42)
    assert np.isnan(resample(times, np.full(4, np.nan), grid, OPTIONS)).all()


def test_frames_become_times_by_the_videos_rate(tmp_path: Path, write_media: WriteMedia) -> None:
    pictures = [np.full((32, 32, 3), 90, dtype=np.uint8)] * 75
    write_media(tmp_path / "P01.mp4", pictures)  # 3 s at 25 a second
    header = ["Frame" if name == "Timestamp" else name for name in HEADER]
    rows = [[row[0], str(i), *row[2:]] for i, row in enumerate(_rows()[2::2])]
    _write(tmp_path / "P01.csv", header=header, rows=rows)
    records = read_records(tmp_path)
    assert _labels(records) == ["happy", "happy", "neutral"], "the export outlasts the video"
    assert read_export(tmp_path / "P01.csv", read_layout(tmp_path / "P01.csv"), 50).times[
        -1
    ] == pytest.approx(99 / 50)


def test_exports_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    _write(tmp_path / "a.csv", "P01")
    _write(tmp_path / "b.csv", "P02")
    _write(tmp_path / "c.csv", "P03")
    _write(tmp_path / "d.csv", "P01", rows=[_event(1, 0.0)])
    (tmp_path / "list.csv").write_text("participant,age\nP01,24\n")
    (tmp_path / "eyes.csv").write_text("Row,Timestamp,ET_GazeLeftx\n1,0,200\n")
    for name in ("P01.mp4", "P02_gaze.mp4", "P02_interview.mp4"):
        (tmp_path / name).touch()
    with pytest.warns(UserWarning, match="left out") as caught:
        records = read_records(tmp_path)
    assert {record.speaker for record in records} == {"affdex-P01"}
    message = str(caught[0].message)
    assert r"several videos of P02 (P02_gaze.mp4, P02_interview.mp4)" in message
    assert "no video of participant P03" in message
    assert "d.csv: no row holds a time and an AFFDEX measure" in message
    assert "list.csv: no header row that holds Row and Timestamp" in message
    assert "eyes.csv: its header has no AFFDEX column" in message
    with pytest.warns(UserWarning, match="left out"):
        records = read_records(tmp_path, AffdexOptions(video_pattern="*interview*"))
    assert {record.speaker for record in records} == {"affdex-P02"}


def test_an_export_without_metadata_goes_by_its_name(tmp_path: Path) -> None:
    lines = [",".join(HEADER), *(",".join(row) for row in _rows())]
    (tmp_path / "042_Anna.csv").write_text("\n".join(lines))
    (tmp_path / "042_Anna.wmv").touch()
    assert {record.speaker for record in read_records(tmp_path)} == {"affdex-042_Anna"}
