"""Fusion of tables: rules as in the model, hand-worked numbers, and mistakes told in one line."""

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from evaluation.combination import Combination, combine, fit_combination, fit_weights
from evaluation.fuse import main
from evaluation.rules import METHODS
from evaluation.score_tables import read_score_table, to_log_probabilities
from labels.clip_names import read_clip_name

ROOT = Path(__file__).parents[2]
EMOTIONS = ("happy", "sad", "angry")
CODES = {"happy": "03", "sad": "04", "angry": "05"}
NO_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "torchaudio"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
"""
Rows = Sequence[Sequence[object]]


def _write(path: Path, header: str, rows: Rows) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header.split(","))
        writer.writerows(rows)
    return path


def _random_log_p(count: int, members: int, classes: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.log(random.dirichlet(np.ones(classes), (count, members)))


def _ravdess_rows(
    actors: Sequence[int], modality: str, seed: int, skill: float = 1.5
) -> list[list[object]]:
    """Scores as logits of a system that is right more often than not; 18 clips an actor."""
    random = np.random.default_rng(seed)
    rows: list[list[object]] = []
    for actor in actors:
        for emotion, code in CODES.items():
            for repetition in range(6):
                strength, statement, take = (f"{repetition >> i & 1}" for i in range(3))
                name = f"{modality}-01-{code}-0{int(strength) + 1}-0{int(statement) + 1}"
                name += f"-0{int(take) + 1}-{actor:02d}"
                logits = random.normal(0, 1, 3) + skill * (np.array(EMOTIONS) == emotion)
                rows.append([name, *logits.round(4)])
    return rows


def _corpus(folder: Path, skills: tuple[float, float] = (1.6, 1.4)) -> dict[str, list[str]]:
    """Tables of a speech and a face system, classes in different orders and scales."""
    sides = {"train": range(1, 9), "test": range(9, 15)}
    paths: dict[str, list[str]] = {"train": [], "test": []}
    for side, actors in sides.items():
        speech = _ravdess_rows(list(actors), "03", seed=len(side), skill=skills[0])
        rows = [[f"sound/{name}.wav", *logits] for name, *logits in speech]
        path = folder / f"speech_{side}.csv"
        paths[side].append(str(_write(path, "clip,logit_happy,logit_sad,logit_angry", rows)))
        face = _ravdess_rows(list(actors), "01", seed=10 + len(side), skill=skills[1])
        face_rows: list[list[object]] = []
        for name, *logits in reversed(face):
            p = np.exp(np.array(logits, dtype=float))
            happy, sad, angry = p / p.sum()
            face_rows.append([f"{name}.mp4", angry, happy, sad])
        path = folder / f"face_{side}.csv"
        paths[side].append(str(_write(path, "file,Anger,happiness,Sad", face_rows)))
    return paths


def _metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("members", [2, 3])
def test_rules_agree_with_the_model_of_late_fusion(method: str, members: int) -> None:
    torch = pytest.importorskip("torch")
    from models.late_fusion import LateFusion

    random = np.random.default_rng(members)
    log_p = _random_log_p(200, members, 5)
    present = random.random((200, members)) < 0.7
    model = LateFusion.__new__(LateFusion)
    torch.nn.Module.__init__(model)
    model.method = method
    weights = np.array([0.0, 0.7, 0.3])[:members]
    weights = weights / weights.sum()
    model.register_buffer("weight", torch.tensor(weights))
    matrix, bias = random.normal(size=(5, members * 5)), random.normal(size=5)
    model.stack = torch.nn.Linear(members * 5, 5, dtype=torch.float64)
    model.stack.weight.data, model.stack.bias.data = torch.tensor(matrix), torch.tensor(bias)
    rule = Combination(
        method,
        weights=weights if method == "weighted" else None,
        matrix=matrix if method == "stacking" else None,
        bias=bias if method == "stacking" else None,
    )
    with torch.no_grad():
        expected = model.combine(torch.tensor(log_p), torch.tensor(present)).numpy()
    assert (~present).all(axis=1).any()
    np.testing.assert_allclose(rule.apply(log_p, present), expected, atol=1e-6)


def test_the_late_fusion_model_is_fitted_by_the_same_code() -> None:
    torch = pytest.importorskip("torch")
    from models import build_model

    log_p, targets = _random_log_p(300, 2, 4), np.random.default_rng(1).integers(0, 4, 300)
    log_p[np.arange(300), 0, targets] += 1.0
    log_p -= np.logaddexp.reduce(log_p, axis=2, keepdims=True)
    part = {"name": "speech_cnn", "arguments": {"num_classes": 4}}
    for method in ("weighted", "stacking"):
        model = build_model(
            "late_fusion", landmarks=part, speech=part, num_classes=4, late_method=method
        )
        said = torch.tensor(log_p)
        outputs = {"landmarks_logits": said[:, 0], "speech_logits": said[:, 1]}
        model.fit_combination(outputs, torch.tensor(targets))
        fitted = fit_combination(log_p, targets, method)
        with torch.no_grad():
            combined = model.combine(said.float(), torch.ones(300, 2, dtype=torch.bool))
        np.testing.assert_allclose(combined.numpy(), fitted.apply(log_p), atol=1e-4)


def test_rules_give_the_numbers_worked_out_by_hand() -> None:
    p = np.array([[[0.8, 0.2], [0.3, 0.7]]])
    means = {
        "mean": [0.55, 0.45],
        "product": np.sqrt([0.24, 0.14]) / np.sqrt([0.24, 0.14]).sum(),
    }
    for method, expected in means.items():
        np.testing.assert_allclose(np.exp(combine(np.log(p), method=method))[0], expected)
    weighted = combine(np.log(p), method="weighted", weights=[3, 1])
    np.testing.assert_allclose(np.exp(weighted)[0], [0.675, 0.325])
    alone = combine(np.log(p), np.array([[False, True]]), "mean")
    np.testing.assert_allclose(np.exp(alone)[0], [0.3, 0.7])
    nobody = combine(np.full((1, 2, 2), np.nan), np.array([[False, False]]), "product")
    np.testing.assert_allclose(np.exp(nobody)[0], [0.5, 0.5])


def test_weights_of_three_members_go_to_the_one_that_knows() -> None:
    random = np.random.default_rng(0)
    targets = random.integers(0, 4, 400)
    log_p = _random_log_p(400, 3, 4)
    informed = np.log(np.full((400, 4), 0.1) + 0.6 * np.eye(4)[targets])
    log_p[:, 1] = informed
    weights = fit_weights(log_p, np.eye(4)[targets])
    assert weights[1] > 0.95
    assert weights.sum() == pytest.approx(1.0)


def test_stacking_corrects_a_member_that_confuses_two_classes_always() -> None:
    random = np.random.default_rng(0)
    targets = random.integers(0, 3, 300)
    swapped = np.array([1, 0, 2])[targets]
    log_p = np.log(np.stack([0.1 + 0.7 * np.eye(3)[swapped]] * 2, axis=1))
    rule = fit_combination(log_p, targets, "stacking", groups=np.arange(300) % 6)
    assert (rule.apply(log_p).argmax(axis=1) == targets).all()
    assert (combine(log_p).argmax(axis=1) == targets).mean() < 0.5


def test_rules_refuse_what_they_cannot_do() -> None:
    log_p = _random_log_p(3, 2, 2)
    with pytest.raises(ValueError, match="'vote'; choose from mean"):
        combine(log_p, method="vote")
    with pytest.raises(ValueError, match="2 weights of 0 or more"):
        combine(log_p, method="weighted", weights=[1])
    with pytest.raises(ValueError, match="fit_combination"):
        combine(log_p, method="stacking")


@pytest.mark.parametrize(
    ("scores", "expected", "kind"),
    [
        ([[0.2, 0.8], [0.5, 0.5]], [[0.2, 0.8], [0.5, 0.5]], "probabilities"),
        ([[20.0, 80.0], [50.0, 50.0]], [[0.2, 0.8], [0.5, 0.5]], "percentages"),
        ([[1.0, 4.0], [3.0, 3.0]], [[0.2, 0.8], [0.5, 0.5]], "divided by their sum"),
        ([[np.log(0.2), np.log(0.8)]], [[0.2, 0.8]], "log-probabilities"),
        ([[-1.0, np.log(4) - 1], [2.0, 2.0]], [[0.2, 0.8], [0.5, 0.5]], "logits"),
    ],
)
def test_the_kind_of_scores_is_found_and_told(
    scores: list[list[float]], expected: list[list[float]], kind: str
) -> None:
    log_p, assumed = to_log_probabilities(np.array(scores), Path("t.csv"))
    np.testing.assert_allclose(np.exp(log_p), expected)
    assert kind in assumed


def test_clips_match_by_stem_and_ravdess_by_performance() -> None:
    sound = read_clip_name("D:\\speech\\03-01-05-01-02-01-12.wav")
    assert sound == read_clip_name("faces/02-01-05-01-02-01-12.mp4")
    assert (sound.label, sound.speaker) == ("angry", "ravdess-12")
    assert read_clip_name("a/talk.v2.mp4").key == "talk.v2"
    assert read_clip_name("a/talk.mp4@12.5").key == "talk@12.5"
    assert read_clip_name("talk.mp4@12.5") != read_clip_name("talk.mp4@13")


def test_two_recordings_of_a_performance_are_averaged(tmp_path: Path) -> None:
    rows = [["01-01-03-01-01-01-01.mp4", 0.5, 0.5], ["02-01-03-01-01-01-01.mp4", 0.8, 0.2]]
    table = read_score_table(_write(tmp_path / "t.csv", "clip,p_happy,p_sad", rows))
    assert len(table.keys) == 1
    np.testing.assert_allclose(np.exp(table.log_p), [[2 / 3, 1 / 3]])
    assert "averaged" in table.assumed


def test_a_hand_worked_fusion_comes_out_in_the_files(tmp_path: Path) -> None:
    one = _write(
        tmp_path / "one.csv",
        "clip,label,speaker,p_happy,p_sad",
        [["a.wav", "happy", "s1", 0.6, 0.4], ["b.wav", "sad", "s2", 0.6, 0.4]],
    )
    two = _write(
        tmp_path / "two.csv",
        "clip,p_sad,p_happy",
        [["x/b.mp4", 0.9, 0.1], ["x/a.mp4", 0.3, 0.7]],
    )
    out = tmp_path / "out"
    command = ["--test", str(one), str(two), "--method", "mean", "--output", str(out)]
    assert main(command) == 0
    rows = list(csv.DictReader((out / "fused.csv").open()))
    assert [row["clip"] for row in rows] == ["a.wav", "b.wav"]
    assert [row["label"] for row in rows] == ["happy", "sad"]
    assert [float(row["p_happy"]) for row in rows] == pytest.approx([0.65, 0.35])
    metrics = _metrics(out)
    assert metrics["systems"]["one"]["accuracy"]["value"] == 0.5
    assert metrics["systems"]["two"]["uar"]["value"] == 1.0
    assert metrics["systems"]["fused"]["macro_f1"]["value"] == 1.0
    assert metrics["gain"]["over"] == "two"
    assert metrics["intervals_by"] == "speaker"


@pytest.mark.parametrize("method", METHODS)
def test_two_systems_of_different_forms_are_fused_and_gain(
    tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = _corpus(tmp_path)
    out = tmp_path / "out"
    command = ["--train", *paths["train"], "--test", *paths["test"], "--method", method]
    assert main([*command, "--output", str(out)]) == 0
    metrics, told = _metrics(out), capsys.readouterr().out
    fused, gain = metrics["systems"]["fused"], metrics["gain"]
    assert (fused["clips"], fused["units"], metrics["clips"]) == (108, 6, 108)
    assert fused["uar"]["low"] <= fused["uar"]["value"] <= fused["uar"]["high"]
    assert gain["uar"]["difference"] > 0
    assert "speech_test.csv: taken for logits" in told
    assert "face_test.csv: taken for probabilities" in told
    if method == "weighted":
        weights = metrics["fitted"]["weights"]
        assert weights["speech_test"] > weights["face_test"] > 0


def test_clips_of_one_system_alone_are_kept_when_asked(tmp_path: Path) -> None:
    paths = _corpus(tmp_path)
    lines = Path(paths["test"][1]).read_text().splitlines()
    Path(paths["test"][1]).write_text("\n".join(lines[:-5]) + "\n")
    command = ["--test", *paths["test"], "--output", str(tmp_path / "out")]
    for missing, clips in (("keep", 108), ("drop", 103)):
        assert main([*command, "--missing", missing]) == 0
        metrics = _metrics(tmp_path / "out")
        assert (metrics["clips"], metrics["systems"]["fused"]["clips"]) == (clips, 103)


def test_unknown_speakers_are_noted_loudly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [["a", "happy", 0.6, 0.4], ["b", "sad", 0.2, 0.8]]
    paths = [_write(tmp_path / f"{n}.csv", "clip,label,happy,sad", rows) for n in "xy"]
    command = ["--test", *map(str, paths), "--output", str(tmp_path / "out")]
    assert main(command) == 0
    assert "BY CLIP" in capsys.readouterr().out
    assert _metrics(tmp_path / "out")["intervals_by"] == "clip"


def test_a_file_of_labels_gives_truth_and_speakers_and_stands_above_the_tables(
    tmp_path: Path,
) -> None:
    rows = [["a.wav", "sad", 0.9, 0.1], ["b.wav", "sad", 0.2, 0.8], ["c.wav", "", 0.6, 0.4]]
    paths = [_write(tmp_path / f"{n}.csv", "clip,label,happy,sad", rows) for n in "xy"]
    told = [["v/a.mp4", "Happiness", "s1"], ["v/b.mp4", "sad", "s2"], ["v/c.mp4", "sad", "s2"]]
    labels = _write(tmp_path / "labels.csv", "clip,label,speaker", told)
    command = ["--test", *map(str, paths), "--labels", str(labels)]
    assert main([*command, "--output", str(tmp_path / "out")]) == 0
    metrics = _metrics(tmp_path / "out")
    assert metrics["intervals_by"] == "speaker"
    assert metrics["systems"]["fused"]["accuracy"]["value"] == pytest.approx(2 / 3)


HEADER = "clip,p_happy,p_sad"
GOOD = [["a", 0.6, 0.4], ["b", 0.2, 0.8]]


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (HEADER, [*GOOD, ["a", 0.1, 0.9]], "has the clip 'a' twice"),
        (HEADER, [*GOOD, ["x/a", 0.1, 0.9]], "differ only in folder or extension"),
        (HEADER, GOOD[:1], "lacks 1 of 2 clips, 'b' among them"),
        (HEADER, [["a", "nan", 0.4], GOOD[1]], "'p_happy' of the clip 'a' is 'nan'"),
        (HEADER, [["a", 0, 0], GOOD[1]], "all 0"),
        ("clip,p_happy,p_bored", GOOD, "unknown class 'bored'"),
        ("clip,p_happy,p_happiness,p_sad", [["a", 0, 0, 1]], "are one class"),
        ("clip,label,p_happy,p_sad", [["a", "sad", 0, 1], ["b", "", 0, 1]], "labelled 'happy'"),
        ("clip,text", [["a", "x"]], "no columns of scores"),
        ("p_happy,p_sad", [[0.1, 0.9]], "no column of clip names"),
    ],
)
def test_mistakes_in_a_table_are_one_line(
    tmp_path: Path, header: str, rows: Rows, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled = [["a", "happy", 0.6, 0.4], ["b", "sad", 0.2, 0.8]]
    good = _write(tmp_path / "good.csv", "clip,label,p_happy,p_sad", labelled)
    bad = _write(tmp_path / "bad.csv", header, rows)
    assert main(["--test", str(good), str(bad), "--output", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_mistakes_in_the_command_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = _corpus(tmp_path)
    out = ["--output", str(tmp_path / "out")]
    clip = Path(paths["test"][0]).read_text().splitlines()[1].split(",")[0]
    odd = _write(tmp_path / "labels.csv", "clip,label", [[clip, "contempt"]])
    for command, message in (
        (["--test", *paths["test"], "--method", "stacking"], "give --train"),
        (["--train", paths["train"][0], "--test", *paths["test"]], "1 --train and 2 --test"),
        (["--test", paths["test"][0]], "two systems or more"),
        (["--train", *paths["test"], "--test", *paths["test"]], "108 clips are in --train and"),
        (["--test", paths["test"][0], str(tmp_path / "no.csv")], "does not exist"),
        (["--test", *paths["test"], "--labels", str(odd)], "'contempt', an unknown class"),
    ):
        assert main([*command, *out]) == 2
        told = capsys.readouterr().err
        assert message in told
        assert told.count("\n") == 1


def test_fusion_runs_where_torch_cannot_be_imported(tmp_path: Path) -> None:
    paths = _corpus(tmp_path)
    arguments = ["--train", *paths["train"], "--test", *paths["test"], "--method", "stacking"]
    arguments += ["--output", str(tmp_path / "out")]
    code = f"{NO_TORCH}\nfrom evaluation.fuse import main\nsys.exit(main({arguments!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    assert (tmp_path / "out" / "fused.csv").exists()
