"""A checkpoint to a file to pass on."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from checkpoints.checkpoint import load_checkpoint, save_checkpoint
from checkpoints.convert import main
from evaluation.calibration import Calibration
from tests.builders import LABELS, make_checkpoint


def test_weights_of_16_bits_take_half_the_room_and_say_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, half = tmp_path / "model_best.safetensors", tmp_path / "x" / "half.safetensors"
    save_checkpoint(make_checkpoint("speech_cnn"), whole)
    assert main([str(whole), str(half), "--half"]) == 0
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    assert hashlib.sha256(half.read_bytes()).hexdigest() in capsys.readouterr().out
    speech = torch.randn(1, 64, 100)
    first, second = (load_checkpoint(path).model(speech)["logits"] for path in (whole, half))
    assert torch.allclose(first, second, atol=0.02)


def test_a_calibration_can_be_left_out(tmp_path: Path) -> None:
    fitted, plain = tmp_path / "fitted.safetensors", tmp_path / "plain.safetensors"
    calibration = Calibration("temperature", (2.0, 2.0), (0.0, 0.0))
    save_checkpoint(replace(make_checkpoint("speech_cnn"), calibration=calibration), fitted)
    for flags, expected in (([], calibration), (["--uncalibrated"], None)):
        assert main([str(fitted), str(plain), *flags]) == 0
        assert load_checkpoint(plain).calibration == expected


def test_a_mistake_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.safetensors"), str(tmp_path / "a.safetensors")]) == 2
    assert main([str(tmp_path / "none.safetensors"), str(tmp_path / "a.pth")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert "are .safetensors files" in errors[1]


def test_a_temperature_is_fitted_on_a_table_of_predictions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    says = np.where(rng.random(200) < 0.7, labels, 1 - labels)  # right in 70 %, and sure of it
    lines = ["clip,speaker,target,p_happy,p_sad"]
    for index, (label, said) in enumerate(zip(labels, says, strict=True)):
        sure = (0.99, 0.01) if said == 0 else (0.01, 0.99)
        lines.append(f"{index},{index % 9},{LABELS[label]},{sure[0]},{sure[1]}")
    table = tmp_path / "predictions.csv"
    table.write_text("\n".join(lines))
    plain, fitted = tmp_path / "plain.safetensors", tmp_path / "fitted.safetensors"
    save_checkpoint(make_checkpoint("speech_cnn"), plain)
    assert main([str(plain), str(fitted), "--calibrate_on", str(table)]) == 0
    calibration = load_checkpoint(fitted).calibration
    assert calibration is not None
    sure = calibration.apply(np.log([[0.99, 0.01]]))[0, 0]
    assert sure == pytest.approx((says == labels).mean(), abs=0.01)
    assert load_checkpoint(fitted).conformal
    table.write_text("clip,speaker,target,p_angry,p_sad\n0,1,sad,0.5,0.5")
    assert main([str(plain), str(fitted), "--calibrate_on", str(table)]) == 2
    assert "is of angry, sad" in capsys.readouterr().err
