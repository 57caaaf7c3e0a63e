"""ClipConfig: what it refuses, and that stores and checkpoints of earlier versions are read."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from media.configuration import ENTRIES, LEGACY, MODALITIES, STORED, ClipConfig

CONFIG = ClipConfig(face_size=16)
# As stores and checkpoints hold it: an entry that is renamed here makes them unreadable.
HELD = {
    "window_seconds": 1.0,
    "pictures": 15,
    "picture_choice": "last",
    "picture_rate": 30.0,
    "face_size": 96,
    "face_margin": 0.0,
    "colour": "rgb",
    "face_mean": [0.485, 0.456, 0.406],
    "face_std": [0.229, 0.224, 0.225],
    "detector": "mtcnn",
    "detector_side": 320,
    "detector_stride": 5,
    "landmark_rate": 30.0,
    "mesh_rate": 10.0,
    "sample_rate": 16000,
    "speech_feature": "log_mel",
    "n_fft": 512,
    "win_length": 400,
    "hop_length": 160,
    "n_mels": 64,
    "f_min": 50.0,
    "f_max": 8000.0,
    "silence_dbfs": -60.0,
    "speech_context_seconds": 0.0,
    "speech_block_seconds": 5.0,
    "voice_activity": 0.0,
}
LATER = ("speech_context_seconds", "speech_block_seconds", "voice_activity", "picture_rate")
OTHER = {
    **{"picture_choice": "even", "colour": "bgr", "detector": "whole", "speech_feature": "mfcc"},
    **{"face_size": 48, "face_mean": (0.0, 0.0, 0.0), "face_std": (1.0, 1.0, 1.0)},
    **{"voice_activity": 0.25, "speech_block_seconds": 2.5},
}


def test_what_earlier_versions_wrote_is_read() -> None:
    assert json.loads(json.dumps(ClipConfig().to_dict())) == HELD
    assert ClipConfig.from_dict(HELD) == ClipConfig()
    older = {name: value for name, value in HELD.items() if name not in LATER}
    assert ClipConfig.from_dict(older) == ClipConfig(), "what it lacks is as it was then"


@pytest.mark.parametrize("name", sorted(set(HELD) - {"speech_context_seconds"}))
def test_a_mismatch_names_the_entry_and_both_values(name: str) -> None:
    here = ClipConfig()
    value = OTHER[name] if name in OTHER else 2 * getattr(here, name) or 1
    there = replace(here, **{name: value})
    wanted = [f"{name} is {getattr(here, name)} here and {value} there"]
    assert here.differences(there) == wanted
    assert here.differences(there, (name,)) == wanted
    assert here.differences(there, tuple(set(HELD) - {name})) == []


def test_every_modality_has_entries_that_exist() -> None:
    assert set(ENTRIES) == set(MODALITIES)
    assert {name for names in ENTRIES.values() for name in names} | set(STORED) <= set(HELD)


def test_a_configuration_survives_json() -> None:
    for config in (ClipConfig(), LEGACY):
        again = ClipConfig.from_dict(json.loads(json.dumps(config.to_dict())))
        assert again == config
        assert hash(again) == hash(config)


def test_an_unknown_entry_of_a_configuration_is_named() -> None:
    with pytest.raises(ValueError, match="unknown ClipConfig entries mouth_size"):
        ClipConfig.from_dict({**ClipConfig().to_dict(), "mouth_size": 3})


@pytest.mark.parametrize(
    "values", [{"face_size": 100}, {"face_size": 0}, {"pictures": 0}, {"window_seconds": -1.0}]
)
def test_a_value_out_of_range_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        ClipConfig.from_dict(values)


def test_differences_name_both_values() -> None:
    other = replace(CONFIG, face_size=224)
    assert CONFIG.differences(other) == ["face_size is 16 here and 224 there"]
    assert CONFIG.differences(other, ("n_mels",)) == []
