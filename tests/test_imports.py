"""Start-up: what takes seconds to import is imported only by those who need it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = (
    "torchvision",
    "facenet_pytorch",
    "librosa",
    "sklearn",
    "skimage",
    "torch._dynamo",
    "sympy",
)


def _imported_by(code: str, *arguments: str) -> set[str]:
    """Which of `HEAVY` a fresh interpreter has imported after the code."""
    script = f"import sys\n{code}\nprint(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return set(done.stdout.splitlines()[-1].split())


def test_inference_with_the_default_checkpoint_imports_nothing_heavy(
    talking_face: Path, tmp_path: Path
) -> None:
    code = "import main; assert main.main(sys.argv[1:]) == 0"
    found = _imported_by(code, "--media_path", str(talking_face), "--output", str(tmp_path))
    assert found == set()
    assert (tmp_path / f"{talking_face.stem}.csv").exists()


def test_the_options_import_nothing_heavy() -> None:
    assert _imported_by("import opts; opts.parse_options(['--media_path', 'a.mp4'])") == set()


@pytest.mark.parametrize(
    "module",
    ["experiments.crossval", "explain.explanation", "checkpoints.convert", "datasets.prepare"],
)
def test_commands_import_no_library_of_single_models(module: str) -> None:
    assert _imported_by(f"import {module}") <= {"sklearn"}


@pytest.mark.parametrize(
    ("model", "needed"), [("multimodalcnn", False), ("cnn_ae_lstm", False), ("vit_b_16", True)]
)
def test_torchvision_is_imported_by_models_that_are_built_of_it(model: str, needed: bool) -> None:
    code = f"import models; model = models.build_model('{model}')"
    assert ("torchvision" in _imported_by(code)) == needed
