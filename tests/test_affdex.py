"""AFFDEX exports in the forms that iMotions writes them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from datasets.affdex import (
    AffdexOptions,
    Export,
    label_windows,
    read_export,
    read_layout,
    read_records,
    resample,
)
from datasets.annotations import Record
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


def test_windows_of_a_participant_carry_labels_and_targets(tmp_path: Path) -> None:
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
    assert {n: first.extra[f"t_{n}"] for n in ("joy", "anger", "attention", "valence")} == {
        "joy": "1",
        "anger": "0",
        "attention": "0.9000",
        "valence": "-0.4000",
    }
    assert first.extra["t_engagement"] == "0.5550"
    assert first.extra["coverage"] == "1.00"


def test_thresholds_and_windows_are_the_users(tmp_path: Path) -> None:
    _write(tmp_path / "P01.csv")
    (tmp_path / "P01.mp4").touch()
    options = AffdexOptions(
        window_seconds=2.0, hop_seconds=1.0, threshold=90.0, thresholds={"joy": 40.0}
    )
    records = read_records(tmp_path, options)
    assert [(r.start, r.end) for r in records] == [(0, 2), (1, 3), (2, 4)]
    assert set(_labels(records)) == {"neutral"}
    assert [r.extra["t_joy"] for r in records] == ["1", "1", "0"]
    assert len(read_records(tmp_path, AffdexOptions(offset=10.0))) == 4, "as the video starts later"


def test_a_threshold_for_no_emotion_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown emotion 'happy'; choose from anger, "):
        AffdexOptions(thresholds={"happy": 40.0})


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
