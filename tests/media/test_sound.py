"""Sound in blocks: what a window is heard from, Whisper's spectrogram, streaming, augmentation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch

from datasets.annotations import read_annotations
from datasets.augment import AugmentOptions, augment_clip, drop_modalities, mask_spectrogram, mix_up
from datasets.samples import ClipDataset, SampleOptions, collate
from media.clip import Window, tile_windows
from media.configuration import ClipConfig
from media.preprocess import preprocess, preprocess_block, recognised_frames, used_blocks
from media.reading import read_recording, stream_clips
from media.recording import Recording
from media.sound import sound_span, touched_blocks
from media.whisper_mel import LOUDEST, mel_filters, whisper_mel
from models.whisper_speech import CLIPS
from tests.builders import SMALL, make_corpus, make_recording, open_stores, without_sound
from tests.conftest import WriteMedia
from tests.media.test_reading import assert_same

ALONE = replace(SMALL, **CLIPS)
BLOCKS = replace(ALONE, speech_context_seconds=1.0)
RATE = ALONE.sample_rate
SPEECH = ("speech",)


def _noise(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise whose level rises and falls, as int16."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    return (3000 * rng.standard_normal(len(t)) * (1.2 + np.sin(2 * np.pi * t))).astype(np.int16)


def _recording(seconds: float, seed: int = 0) -> Recording:
    return replace(make_recording(seed, seconds=seconds), waveform=_noise(seconds, seed))


def test_the_filters_are_librosas() -> None:
    ours = mel_filters(RATE, 400, 80, 0.0, 8000.0)
    theirs = librosa.filters.mel(sr=RATE, n_fft=400, n_mels=80)
    np.testing.assert_allclose(ours, theirs, atol=1e-7)
    assert ours.dtype == np.float32


def _published_mel(waveform: np.ndarray) -> np.ndarray:
    """Whisper's power in decades, by librosa: the last frame dropped, no normalisation."""
    spectrum = librosa.stft(
        waveform, n_fft=400, hop_length=160, window="hann", center=True, pad_mode="reflect"
    )
    power = np.abs(spectrum[:, :-1]) ** 2
    return np.log10(np.maximum(librosa.filters.mel(sr=RATE, n_fft=400, n_mels=80) @ power, 1e-10))


def test_the_spectrogram_is_whispers_but_for_its_level_and_its_ends() -> None:
    waveform = _noise(3.0) / np.float32(32768)
    ours = whisper_mel(torch.from_numpy(waveform[RATE - 200 : 2 * RATE + 200]), ALONE).numpy()
    theirs = _published_mel(waveform)[:, 100:200]  # frames in the middle of a longer sound
    theirs = np.maximum(theirs - theirs.max() + LOUDEST, LOUDEST - 8)
    assert ours.shape == (80, 100)
    np.testing.assert_allclose(ours, (theirs + 4) / 4, atol=1e-4)


@pytest.mark.parametrize("gain", [0.05, 3.0])
def test_level_does_not_matter(gain: float) -> None:
    waveform = torch.from_numpy(_noise(1.0) / np.float32(32768))
    torch.testing.assert_close(
        whisper_mel(waveform * gain, ALONE), whisper_mel(waveform, ALONE), atol=1e-4, rtol=0
    )
    assert float(whisper_mel(waveform, ALONE).max()) == pytest.approx((LOUDEST + 4) / 4)


def test_silence_is_not_lifted_to_the_level_of_speech() -> None:
    loud = whisper_mel(torch.from_numpy(_noise(1.0) / np.float32(32768)), ALONE)
    silent = whisper_mel(torch.zeros(RATE + 400), ALONE)
    assert float(silent.max()) < float(loud.mean()) - 0.5


def test_a_click_is_in_the_frame_of_its_time() -> None:
    recording = _recording(4.0)
    recording.waveform[:] //= 100
    recording.waveform[round(2.25 * RATE)] = 30000
    inputs = preprocess(recording.cut(Window(2.0, 3.0), ALONE), ALONE, SPEECH)
    assert inputs["speech"].shape == (1, 80, 100)
    assert int(inputs["speech"][0].mean(dim=0).argmax()) == 25


@pytest.mark.parametrize(
    ("window", "block", "frames"),
    [
        (Window(0.0, 1.0), 0, range(100)),  # nothing before the recording
        (Window(2.0, 3.0), 0, range(50, 200)),  # one block, and context on both sides
        (Window(4.0, 5.0), 0, range(150, 300)),  # the context reaches into the next
        (Window(4.5, 5.5), 0, range(175, 325)),
        (Window(6.0, 7.0), 1, range(150)),
        (Window(11.0, 12.0), 2, range(100)),  # nothing after it
        (Window(11.5, 12.0, partial=True), 2, range(25, 100)),
    ],
)
def test_a_window_is_heard_from_the_frames_around_it(
    window: Window, block: int, frames: range
) -> None:
    clip = _recording(12.0).cut(window, BLOCKS)
    inputs = preprocess(clip, BLOCKS, SPEECH)
    assert inputs["speech"].shape == (2, 80, 500)
    assert inputs["speech_mask"].shape == (500,)
    assert clip.speech_block == block
    assert inputs["speech_mask"].nonzero().flatten().tolist() == list(frames)
    used = {frame // 250 for frame in frames}
    assert [bool(part.any()) for part in inputs["speech"]] == [0 in used, 1 in used]


def test_a_block_does_not_depend_on_the_window() -> None:
    recording = _recording(14.0)
    seen: dict[int, list[torch.Tensor]] = {}
    for window in tile_windows(14.0, 1.0, 0.5):
        clip = recording.cut(window, BLOCKS)
        assert clip.speech_block is not None
        for block in used_blocks(recognised_frames(clip, BLOCKS), BLOCKS):
            value = preprocess_block(clip, block, BLOCKS)
            seen.setdefault(clip.speech_block + block, []).append(value)
    assert sorted(seen) == [0, 1, 2]
    for values in seen.values():
        assert len(values) > 4
        assert all(torch.equal(value, values[0]) for value in values)


def test_a_block_shows_the_sound_beyond_its_end() -> None:
    recording = _recording(12.0)
    block = preprocess(recording.cut(Window(4.5, 5.5), BLOCKS), BLOCKS, SPEECH)["speech"][0]
    whole = np.pad(recording.waveform, (200, 0)) / np.float32(32768)
    longer = whisper_mel(torch.from_numpy(whole), ALONE)[:, :500]
    longer = (longer - longer.max() + block.max()).clamp(min=-0.75)  # the level alone differs
    torch.testing.assert_close(block, longer, atol=1e-4, rtol=0)
    whole[200 + 5 * RATE :] = 0
    cut_off = whisper_mel(torch.from_numpy(whole), ALONE)[:, :500]
    assert (block[:, -1] - cut_off[:, -1]).abs().max() > 1e-3


def test_a_window_that_is_silent_has_no_speech_though_its_context_has() -> None:
    recording = _recording(6.0)
    recording.waveform[2 * RATE : 3 * RATE] = 0
    clip = recording.cut(Window(2.0, 3.0), BLOCKS)
    assert not clip.has_speech
    inputs = preprocess(clip, BLOCKS, SPEECH)
    assert not inputs["speech"].any()
    assert not inputs["speech_mask"].any()
    assert recording.cut(Window(3.0, 4.0), BLOCKS).has_speech


@pytest.mark.parametrize("config", [ALONE, BLOCKS])
def test_without_sound_there_is_no_speech(config: ClipConfig) -> None:
    clip = without_sound(_recording(3.0)).cut(Window(1.0, 2.0), config)
    inputs = preprocess(clip, config, SPEECH)
    assert not inputs["speech_mask"].any()
    assert inputs["speech"].shape == (config.speech_blocks, 80, config.speech_frames)


@pytest.mark.parametrize("config", [ALONE, BLOCKS])
@pytest.mark.parametrize(("seconds", "speaks"), [(0.09, False), (0.11, True)])
def test_a_moment_of_sound_holds_no_speech_whatever_its_context(
    config: ClipConfig, seconds: float, speaks: bool
) -> None:
    recording = replace(_recording(2.0 + seconds), duration=4.0)  # pictures go on for longer
    for end in (2.0 + seconds, 3.0):
        clip = recording.cut(Window(2.0, end, partial=end < 3.0), config)
        assert clip.has_speech == speaks
        assert preprocess(clip, config, SPEECH)["speech_mask"].any() == speaks


def test_frames_after_the_sound_do_not_exist() -> None:
    recording = replace(_recording(6.0), duration=9.0)  # pictures go on for longer
    for window, count in ((Window(5.0, 6.0), 100), (Window(7.0, 8.0), 0)):
        inputs = preprocess(recording.cut(window, BLOCKS), BLOCKS, SPEECH)
        assert int(inputs["speech_mask"].sum()) == count


def test_a_whole_clip_is_heard_from_all_blocks_it_touches() -> None:
    recording = _recording(11.0)
    whole, alone = BLOCKS.over(11.0), ALONE.over(11.0)
    inputs = preprocess(recording.cut(Window(0.0, 11.0), whole), whole, SPEECH)
    assert inputs["speech"].shape == (4, 80, 500)
    assert inputs["speech_mask"].nonzero().flatten().tolist() == list(range(550))
    inputs = preprocess(recording.cut(Window(0.0, 11.0), alone), alone, SPEECH)
    assert inputs["speech"].shape == (1, 80, 1100)
    assert inputs["speech_mask"].all()
    assert len(inputs["speech_mask"]) == 550


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"speech_context_seconds": -1.0}, "must be 0 or more, not -1"),
        ({"speech_context_seconds": 1.0, "speech_feature": "log_mel"}, "is log_mel: leave it at 0"),
        ({"speech_context_seconds": 1.0, "speech_block_seconds": 2.01}, r"multiple of 0\.02"),
        ({"speech_block_seconds": 0.0}, r"multiple of 0\.02, not 0"),
        ({"sample_rate": 22050}, "of sound at 16000 Hz, and sample_rate is 22050: prepare"),
    ],
)
def test_impossible_blocks_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(ALONE, **values)  # type: ignore[arg-type]


def test_other_features_need_the_window_and_their_margin_alone() -> None:
    for config in (SMALL, ALONE):
        margin = (config.speech_context + 1) / RATE
        assert sound_span(Window(3.0, 4.0), config) == (3.0 - margin, 4.0 + margin)
    assert touched_blocks(Window(3.0, 4.0), BLOCKS) == (0, 0)
    first, last = sound_span(Window(3.5, 4.5), BLOCKS)
    assert (first, last) == (pytest.approx(0.0, abs=0.02), pytest.approx(10.0, abs=0.02))


@pytest.fixture(scope="module")
def long_sound(tmp_path_factory: pytest.TempPathFactory, write_media: WriteMedia) -> Path:
    path = tmp_path_factory.mktemp("sound") / "long.wav"
    sound = _noise(23.4, seed=2) / 32768
    return write_media(path, sound=sound, audio_codec="pcm_s16le")


@pytest.mark.parametrize("hop", [1.0, 0.4])
@pytest.mark.parametrize(
    "config", [ALONE, BLOCKS, replace(BLOCKS, speech_context_seconds=2.5, speech_block_seconds=3.0)]
)
def test_streamed_clips_are_those_of_the_whole_file(
    config: ClipConfig, hop: float, long_sound: Path
) -> None:
    recording = read_recording(long_sound, config, None)
    windows = tile_windows(recording.duration, 1.0, hop)
    streamed = list(stream_clips(long_sound, config, None, hop))
    assert len(streamed) == len(windows) > 20
    for clip, window in zip(streamed, windows, strict=True):
        whole = recording.cut(window, config)
        assert_same(clip, whole)
        for name in ("sound_samples", "sound_offset", "speech_block"):
            assert getattr(clip, name) == getattr(whole, name), (name, window)


def _dataset(folder: Path, config: ClipConfig, **options: object) -> ClipDataset:
    manifest = folder / "manifest.csv"
    if not manifest.exists():
        make_corpus(folder)
    records = [record for record in read_annotations(manifest) if record.subset == "training"]
    return ClipDataset(
        records,
        open_stores(manifest),
        config,
        ("happy", "sad"),
        SPEECH,
        SampleOptions(**options),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("config", [ALONE, BLOCKS])
def test_training_sees_what_inference_sees(config: ClipConfig, tmp_path: Path) -> None:
    scored = _dataset(tmp_path, config)
    for item in range(len(scored)):
        sample = scored[item]
        record = scored.records[sample["record"]]
        recording = open_stores(tmp_path / "manifest.csv").of(record.key).recording(record.key)
        windows = tile_windows(recording.duration, 1.0, 1.0)
        window = next(w for w in windows if w.start == sample["start"])
        expected = preprocess(recording.cut(window, config), config, SPEECH)
        for name, value in expected.items():
            assert torch.equal(sample["inputs"][name], value), (item, name)


@pytest.mark.parametrize("config", [ALONE, BLOCKS])
def test_random_changes_keep_the_shape_and_the_mask(config: ClipConfig, tmp_path: Path) -> None:
    options = {"train": True, "augment": AugmentOptions()}
    changed = _dataset(tmp_path, config, **options)
    plain = _dataset(tmp_path, config, train=True)
    for item in range(len(changed)):
        got, before = changed[item]["inputs"], plain[item]["inputs"]
        assert got["speech"].shape == before["speech"].shape
        assert torch.equal(got["speech_mask"], before["speech_mask"])
        assert got["speech"].isfinite().all()
        assert not torch.equal(got["speech"], before["speech"])


def test_a_change_of_speed_leaves_the_window_where_it_is() -> None:
    recording = _recording(12.0)
    recording.waveform[:] //= 50
    recording.waveform[round(2.5 * RATE) : round(2.5 * RATE) + 40] = 20000
    clip = recording.cut(Window(2.0, 3.0), BLOCKS)
    only = AugmentOptions(speed=0.3).only(["speed"])
    for seed in range(5):
        changed = augment_clip(clip, only, np.random.default_rng(seed), SPEECH)
        assert changed.waveform.shape == clip.waveform.shape
        moved = int(np.abs(changed.waveform).argmax()) - int(np.abs(clip.waveform).argmax())
        assert abs(moved) < 200
        assert not np.array_equal(changed.waveform, clip.waveform)


def test_what_is_blanked_lies_in_what_is_recognised() -> None:
    clip = _recording(12.0).cut(Window(4.0, 5.0), BLOCKS)
    inputs = preprocess(clip, BLOCKS, SPEECH)
    masked = mask_spectrogram(inputs, AugmentOptions(), np.random.default_rng(1))
    changed = (masked["speech"] != inputs["speech"]).any(dim=1).flatten()  # (K * L,)
    assert changed.any()
    recognised = inputs["speech_mask"].repeat_interleave(2)
    assert not (changed & ~recognised).any()


def test_where_nothing_is_recognised_nothing_is_blanked() -> None:
    inputs = preprocess(_recording(12.0).cut(Window(4.0, 5.0), BLOCKS), BLOCKS, SPEECH)
    inputs["speech_mask"][:] = False
    masked = mask_spectrogram(inputs, AugmentOptions(), np.random.default_rng(1))
    assert torch.equal(masked["speech"], inputs["speech"])


def test_batches_of_blocks_lose_modalities_and_are_blended() -> None:
    recording = _recording(12.0)
    windows = (Window(2.0, 3.0), Window(7.0, 8.0))
    samples = [preprocess(recording.cut(w, BLOCKS), BLOCKS, SPEECH) for w in windows]
    inputs = {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
    inputs |= {"face": torch.ones(2, 3, 3, 8, 8), "face_mask": torch.ones(2, 3) > 0}
    target = torch.eye(2)
    dropped, targets = drop_modalities(inputs, target, "softhard")
    assert dropped["speech"].shape == (8, 2, 80, 500)
    assert len(targets) == 8
    torch.manual_seed(3)
    mixed, target = mix_up(inputs, target, 0.4)
    assert mixed["speech"].shape == (2, 2, 80, 500)
    assert torch.equal(mixed["speech_mask"][0], inputs["speech_mask"].any(dim=0))
    share = float(target[0, 0])
    speech = inputs["speech"]
    blended = share * speech[0] + (1 - share) * speech[1] if share < 1 else speech[0]
    neither = ~inputs["speech_mask"].any(dim=0).view(2, 250).repeat_interleave(2, dim=1)
    where = neither[:, None].expand_as(blended)
    torch.testing.assert_close(mixed["speech"][0][where], blended[where])


def test_batches_are_padded_by_steps_and_by_blocks() -> None:
    recording = _recording(16.0)
    for config, shape, heard in (
        (ALONE, (2, 1, 80, 1230), [150, 615]),
        (BLOCKS, (2, 4, 80, 500), [200, 665]),
    ):
        samples = []
        for end in (3.0, 12.3):
            whole = config.over(end)
            inputs = preprocess(recording.cut(Window(0.0, end), whole), whole, SPEECH)
            samples.append({"inputs": inputs, "label": 0})
        batch = collate(samples)["inputs"]
        assert batch["speech"].shape == shape
        steps = shape[1] * shape[3] // 2
        assert batch["speech_mask"].shape == (2, steps)
        assert batch["speech_mask"].sum(dim=1).tolist() == heard
        short = samples[0]["inputs"]
        blocks, _, length = short["speech"].shape
        assert torch.equal(batch["speech"][0, :blocks, :, :length], short["speech"])
