"""Augmentation of clips and batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datasets.augment import AugmentOptions, augment_clip, drop_modalities, mix_up
from media.clip import Window
from media.preprocess import preprocess
from tests.builders import (
    SMALL,
    make_recording,
)


def test_changes_can_be_chosen_and_weakened() -> None:
    only = AugmentOptions().only(["flip", "mask_mels"])
    assert (only.flip, only.mask_mels, only.rotate, only.noise) == (0.5, 10, 0, 0)
    weak = AugmentOptions().scaled(0.5)
    assert (weak.flip, weak.rotate, weak.mask_frames) == (0.25, 7.5, 8)
    assert AugmentOptions().scaled(3).swap == 1.0, "a probability"
    assert AugmentOptions().scaled(1) == AugmentOptions()
    with pytest.raises(ValueError, match="augment_strength must lie in 0 to 3, not 4"):
        AugmentOptions().scaled(4)
    clip = make_recording(0).cut(Window(0.0, 1.0), SMALL)
    off = augment_clip(clip, AugmentOptions().scaled(0), np.random.default_rng(1))
    assert np.array_equal(off.faces, clip.faces)
    assert np.allclose(off.waveform, clip.waveform)


def test_augmentation_changes_all_pictures_of_a_clip_alike() -> None:
    clip = make_recording(0).cut(Window(0.0, 1.0), SMALL)
    still = np.repeat(clip.faces[:1], len(clip.faces), axis=0)
    clip = type(clip)(**{**clip.__dict__, "faces": still})
    changed = augment_clip(clip, AugmentOptions(), np.random.default_rng(1))
    assert not np.array_equal(changed.faces, clip.faces)
    assert all(np.array_equal(face, changed.faces[0]) for face in changed.faces)
    heard = augment_clip(clip, AugmentOptions(), np.random.default_rng(1), ("speech",))
    assert heard.faces is clip.faces, "what is not used costs no time"
    assert not np.array_equal(heard.waveform, clip.waveform)


def test_softhard_makes_four_batches_of_one() -> None:
    modalities = ("face", "speech")
    cut = [make_recording(i).cut(Window(0, 1), SMALL) for i in range(2)]
    clips = [preprocess(clip, SMALL, modalities) for clip in cut]
    inputs = {name: torch.stack([clip[name] for clip in clips]) for name in clips[0]}
    target = torch.eye(2)
    dropped, targets = drop_modalities(inputs, target, "softhard")
    assert torch.equal(targets, target.repeat(4, 1))
    assert torch.equal(dropped["face"][:2], inputs["face"])
    assert not dropped["speech"][4:6].any()
    assert not dropped["speech_mask"][4:6].any()
    assert not dropped["face"][6:].any()
    assert not dropped["face_mask"][6:].any()
    ratio_a = dropped["speech"][2] / inputs["speech"][0]
    ratio_v = dropped["face"][2] / inputs["face"][0]
    assert ratio_a.nanmean() + ratio_v.nanmean() == pytest.approx(1.0, abs=1e-3)
    unchanged, _ = drop_modalities(inputs, target, "nodropout")
    assert unchanged is inputs


def test_mixup_keeps_the_steps_that_only_one_of_two_has() -> None:
    inputs = {"speech": torch.stack([torch.zeros(4, 5), torch.ones(4, 5)])}
    inputs["speech_mask"] = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    torch.manual_seed(3)
    mixed, target = mix_up(inputs, torch.eye(2), alpha=1.0)
    assert 0 < target[0, 0] < 1, "the seed blends the two"
    assert torch.allclose(mixed["speech"][:, 0, :3], target[:, 1:].expand(-1, 3))
    assert not mixed["speech"][:, :, 3:].any()
    assert mixed["speech_mask"].all()


def test_mixup_blends_inputs_and_targets_by_one_share() -> None:
    inputs = {"speech": torch.stack([torch.zeros(4, 5), torch.ones(4, 5)])}
    inputs["speech_mask"] = torch.ones(2, 5, dtype=torch.bool)
    torch.manual_seed(3)
    mixed, target = mix_up(inputs, torch.eye(2), alpha=1.0)
    assert torch.allclose(mixed["speech"][:, 0, 0], target[:, 1])
    assert torch.allclose(target.sum(dim=1), torch.ones(2))
