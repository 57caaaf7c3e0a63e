"""The command line: what is accepted, refused, taken from a recipe, left to the architecture."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from experiments.options import AUTO_BATCH
from models import accepted_arguments, list_models
from models.options import OLD_OPTIONS, ModelOptions
from models.registry import find_model
from opts import _FIELDS, LIST, RECIPES, format_help, parse_options

ROOT = Path(__file__).parent.parent
DATA = ["--annotation_path", "a.csv"]


@pytest.mark.parametrize("model", list_models())
def test_flags_of_several_architectures_have_the_defaults_of_each(model: str) -> None:
    flags = {entry.name: entry.default for entry in fields(ModelOptions)}
    parameters = inspect.signature(find_model(model)).parameters
    for name in set(accepted_arguments(model)) & set(flags):
        if flags[name] is not None:
            assert flags[name] == parameters[name].default, f"{name}: give None where they differ"


def test_branches_are_chosen_from_what_sees_and_hears() -> None:
    options = parse_options([*DATA, "--face_model", "landmark_tcn", "--speech_model", "mfcc_cnn"])
    assert options.model.face_model == "landmark_tcn"
    with pytest.raises(ValueError, match="landmark_tcn cannot be the branch for speech"):
        parse_options([*DATA, "--speech_model", "landmark_tcn"])
    with pytest.raises(ValueError, match="unknown model 'nobody'; choose from blendshape_tcn"):
        parse_options([*DATA, "--face_model", "nobody"])


WHISPER = [*DATA, "--model", "whisper_speech"]


def test_arguments_of_an_architecture_have_the_types_of_its_constructor() -> None:
    given = ["--model_arg", "whisper_size=base", "--model-arg", "encoder-layers=3"]
    options = parse_options([*WHISPER, *given, "--dropout", "0.5"])
    assert options.model.model_arg == {"whisper_size": "base", "encoder_layers": 3}
    named = ["--model_arg", "bidirectional=false", "--model_arg", "noise=0"]
    options = parse_options([*DATA, "--model", "cnn_ae_lstm", *named])
    assert options.model.model_arg == {"bidirectional": False, "noise": 0.0}


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("bogus=1", "model whisper_speech takes no argument bogus; it takes whisper_size (tiny), "),
        ("num_classes=3", "model whisper_speech takes no argument num_classes; it takes"),
        (
            "encoder_layers=x",
            "argument encoder_layers of model whisper_speech must be a whole numb",
        ),
        ("adapter_rank=-1", "argument adapter_rank of model whisper_speech must be a whole number"),
        ("whisper_size=huge", "unknown whisper_size 'huge'; choose from tiny, base, small"),
        ("encoder_layers=9", "encoder_layers must lie in 1 to 4, not 9"),
    ],
)
def test_a_wrong_argument_of_an_architecture_is_named(argument: str, message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - compared below as plain text
        parse_options([*WHISPER, "--model_arg", argument])
    assert message in str(error.value)


def test_an_argument_without_a_value_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_options([*WHISPER, "--model_arg", "encoder_layers"])
    assert "--model_arg/--model-arg: expected NAME=VALUE, not 'encoder_l" in capsys.readouterr().err


def test_an_argument_with_a_flag_of_its_own_is_given_once() -> None:
    assert parse_options([*WHISPER, "--model_arg", "dropout=0.5"]).model.model_arg == {
        "dropout": 0.5
    }
    with pytest.raises(ValueError, match="give dropout as --dropout or in --model_arg, not both"):
        parse_options([*WHISPER, "--model_arg", "dropout=0.5", "--dropout", "0.4"])


def test_old_flags_of_single_architectures_still_work_with_a_note(
    caplog: pytest.LogCaptureFixture,
) -> None:
    options = parse_options([*WHISPER, "--whisper_size", "base"])
    assert options.model.model_arg == {"whisper_size": "base"}
    assert caplog.messages == [
        "note: --whisper_size is now --model_arg whisper_size=VALUE; the old spelling will go with "
        "the next version"
    ]
    options = parse_options([*DATA, "--model", "cnn_ae_lstm", "--no-bidirectional"])
    assert options.model.model_arg == {"bidirectional": False}
    taken = {name for model in list_models() for name in accepted_arguments(model)}
    assert set(OLD_OPTIONS) <= taken


def test_arguments_in_a_recipe_are_a_table_and_go_with_its_architecture(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = 'model = "whisper_speech"\n[model_arg]\nwhisper_size = "base"\nlayer_mix = "all"\n'
    asked = _recipe(tmp_path, table)
    assert parse_options(asked).model.model_arg == {"whisper_size": "base", "layer_mix": "all"}
    given = parse_options([*asked, "--model_arg", "layer_mix=concat"]).model.model_arg
    assert given == {"whisper_size": "base", "layer_mix": "concat"}
    assert parse_options([*asked, "--model", "speech_cnn"]).model.model_arg == {}
    assert not caplog.messages
    old = parse_options(_recipe(tmp_path, 'model = "whisper_speech"\nwhisper_size = "base"\n'))
    assert old.model.model_arg == {"whisper_size": "base"}
    assert "small.toml: whisper_size is now in the table [model_arg]" in caplog.messages[0]
    with pytest.raises(ValueError, match="model speech_cnn takes no argument whisper_size"):
        parse_options(_recipe(tmp_path, table.replace("whisper_speech", "speech_cnn")))


def test_a_run_of_before_is_resumed_with_its_arguments(tmp_path: Path) -> None:
    saved = parse_options(WHISPER).to_dict()
    del saved["model_arg"]
    (tmp_path / "opts.json").write_text(json.dumps({**saved, "encoder_layers": 2, "noise": 0.1}))
    resumed = parse_options(["--resume_path", str(tmp_path)])
    assert resumed.model.model_arg == {"encoder_layers": 2}


def test_the_help_shows_the_flags_of_a_task() -> None:
    everything, train, infer = format_help(), format_help("train"), format_help("infer")
    for flag in (
        "--media_path FILE ...",
        "--n_epochs N",
        "--model_arg NAME=VALUE",
        "--list_models",
    ):
        assert flag in everything
    assert "--media_path FILE" in infer
    assert "--n_epochs N" not in infer
    assert "--n_epochs N" in train
    assert "--media_path FILE ..." not in train
    for text in (everything, train, infer):
        assert text.index("examples:") < text.index("--device")
        for word in ("[[]]", "[False]", "[None]", "Options:", str(Path.cwd())):
            assert word not in text


def test_every_flag_stands_in_one_section_of_the_help() -> None:
    shown = re.findall(r"^  --(?:no-)?([a-z_]+)", format_help(), re.MULTILINE)
    assert sorted(shown) == sorted({*_FIELDS})


@pytest.mark.parametrize("arguments", [["--help"], ["--bogus"], ["--n_epochs", "many"]])
def test_help_and_mistakes_need_no_model(arguments: list[str]) -> None:
    heavy = ("torch", "cv2", "av", "sklearn", "matplotlib", "scipy", "pandas")
    code = (
        "import sys, main\n"
        "try:\n"
        f"    main.main({arguments})\n"
        "except SystemExit:\n"
        f"    found = [name for name in {heavy} if name in sys.modules]\n"
        "    sys.exit(', '.join(found) or 7)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 7, done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--targets", "a,b"], "--targets has no effect unless --task is multilabel or regression"),
        (["--task", "regression", "--classes", "six"], "--classes has no effect unless --task is"),
        (["--task", "regression", "--class_weights", "balanced"], "--class_weights has no effect"),
        (["--task", "multilabel", "--balance", "1"], "--balance has no effect unless --task is"),
        (["--task", "multilabel", "--label_smoothing", "0.1"], "--label_smoothing has no effect"),
        (["--loss", "ccc"], "--loss ccc is not for --task classification; choose from cross_ent"),
        (["--focal_gamma", "1"], "--focal_gamma has no effect unless --loss is focal"),
        (["--restart_epochs", "5"], "--restart_epochs has no effect unless --lr_schedule is warm"),
        (["--no-augment", "--augment_strength", "2"], "--augment_strength has no effect unless"),
        (["--augment_only", "flip,blur"], "unknown augmentation blur; choose from flip, rotate"),
        (["--warmup_epochs", "100"], r"--warmup_epochs must be less than --n_epochs (100), not 10"),
        (["--accumulate", "0"], "--accumulate must be at least 1, not 0"),
        (["--freeze_pretrained"], "--freeze_pretrained has no effect without --pretrain_path"),
        (
            ["--freeze_pretrained", "--pretrain_path", "x", "--trainable", "head"],
            "--freeze_pretrained has no effect with --trainable",
        ),
        (
            ["--pretrained", "none", "--pretrain_path", "x"],
            "--pretrained has no effect with --pretrain_path",
        ),
        (
            ["--learning_rate", "1", "--lr_head", "1", "--lr_backbone", "1"],
            "--learning_rate has no effect with both",
        ),
        (["--model", "speech_cnn", "--backbone", "resnet18"], "--backbone has no effect: model sp"),
        (["--model", "late_fusion", "--accumulate", "2"], "--accumulate has no effect: late_fusio"),
        (["--model", "late_fusion", "--task", "regression"], "combines classifiers; --task regr"),
    ],
)
def test_a_flag_without_effect_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - compared below as plain text
        parse_options([*DATA, *arguments])
    assert message in str(error.value)


def test_a_table_of_models_takes_nothing_else() -> None:
    assert parse_options(["--list_models"]).mode == LIST
    with pytest.raises(ValueError, match="--n_epochs has no effect here"):
        parse_options(["--list_models", "--n_epochs", "2"])


def test_a_batch_size_is_a_number_or_auto(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_options([*DATA, "--batch_size", "auto"]).run.batch_size == AUTO_BATCH
    assert parse_options([*DATA, "--batch_size", "8"]).run.batch_size == 8
    with pytest.raises(ValueError, match="--batch_size auto is for training"):
        parse_options(["--media_path", "x.mp4", "--batch_size", "auto"])
    with pytest.raises(SystemExit):
        parse_options([*DATA, "--batch_size", "many"])
    assert "--batch_size" in capsys.readouterr().err


def test_a_checkpoint_that_is_scored_keeps_its_clips_and_classes(tmp_path: Path) -> None:
    saved = parse_options([*DATA, "--model", "speech_cnn"]).to_dict()
    (tmp_path / "opts.json").write_text(json.dumps(saved))
    resumed = ["--no_train", "--resume_path", str(tmp_path)]
    assert parse_options(resumed).model.model == "speech_cnn"
    for flag in (["--classes", "six"], ["--window_seconds", "2"], ["--augment_strength", "2"]):
        with pytest.raises(ValueError, match=f"{flag[0]} has no effect here"):
            parse_options([*resumed, *flag])


RECIPE = """
# An example.
model = "speech_crnn"
n_epochs = 7
learning_rate = 5e-5
lr_schedule = "step"
lr_steps = [3, 5]
augment_only = ["noise", "speed"]
no_val = true
whole_clips = false
"""


def _recipe(folder: Path, text: str = RECIPE) -> list[str]:
    (folder / "small.toml").write_text(text)
    return [*DATA, "--recipe", str(folder / "small.toml")]


def test_a_recipe_gives_options_and_the_command_line_overrides_them(tmp_path: Path) -> None:
    options = parse_options([*_recipe(tmp_path), "--n_epochs", "2"])
    assert (options.model.model, options.train.n_epochs) == ("speech_crnn", 2)
    assert options.train.learning_rate == 5e-5
    assert options.train.lr_steps == [3, 5]
    assert options.data.augment_only == ["noise", "speed"]
    assert options.train.no_val
    assert not options.data.whole_clips
    saved = options.to_dict()
    assert saved["recipe"] == str(tmp_path / "small.toml")
    assert saved["n_epochs"] == 2


def test_what_a_recipe_was_for_may_be_overridden_away(tmp_path: Path) -> None:
    options = parse_options([*_recipe(tmp_path), "--lr_schedule", "cosine"])
    assert options.train.lr_schedule == "cosine"
    with pytest.raises(ValueError, match="--momentum has no effect unless --optimizer is sgd"):
        parse_options(_recipe(tmp_path, 'optimizer = "adam"\nmomentum = 0.5\n'))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = 3", "small.toml: unknown option 'epochs'"),
        ("[train]\nn_epochs = 3", "small.toml: unknown option 'train'"),
        ('resume_path = "x"', "small.toml: unknown option 'resume_path'"),
        ('n_epochs = "three"', "small.toml: argument --n_epochs/--n-epochs: invalid int value"),
        ("n_epochs = true", "small.toml: argument --n_epochs/--n-epochs: invalid int value"),
        ('model = "nope"', "small.toml: argument --model: invalid choice: 'nope'"),
        ("n_epochs = ", "cannot read recipe"),
    ],
)
def test_a_mistake_in_a_recipe_is_named_with_its_file(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - compared below as plain text
        parse_options(_recipe(tmp_path, text))
    assert message in str(error.value)


def test_switches_of_a_recipe_go_both_ways(tmp_path: Path) -> None:
    options = parse_options(_recipe(tmp_path, "augment = false\nno-val = true\n"))
    assert not options.data.augment
    assert options.train.no_val


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.toml")))
def test_every_option_of_a_shipped_recipe_has_an_effect(name: str) -> None:
    assert parse_options([*DATA, "--recipe", name]).train.recipe == name


def test_a_recipe_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"no recipe .*nowhere\.toml; choose from"):
        parse_options([*DATA, "--recipe", "nowhere"])


def test_a_value_in_a_recipe_that_cannot_be_is_told_with_the_recipe(tmp_path: Path) -> None:
    asked = _recipe(tmp_path, 'augment_only = ["flip", "blur"]\n')
    with pytest.raises(ValueError, match=r"unknown augmentation blur.*small\.toml"):
        parse_options(asked)
