"""Windows, cutting, and the features of a clip."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch

from media.clip import Window, tile_windows, window_at
from media.configuration import LEGACY, ClipConfig
from media.landmarks import build_track
from media.preprocess import LOG_MEL_RANGE, preprocess
from media.recording import Recording

CONFIG = ClipConfig(face_size=16)
RATE = CONFIG.sample_rate


def make_recording(
    seconds: float = 3.0, config: ClipConfig = CONFIG, fps: int = 25, seed: int = 0
) -> Recording:
    """Noise, and face pictures whose brightness is their number."""
    times = np.arange(round(seconds * fps)) / fps
    shape = (len(times), config.face_size, config.face_size, 3)
    numbers = np.arange(len(times), dtype=np.uint8).reshape(-1, 1, 1, 1)
    noise = np.random.default_rng(seed).normal(0, 3000, round(seconds * config.sample_rate))
    return Recording(
        path=Path("a.mp4"),
        duration=seconds,
        waveform=noise.astype(np.int16),
        faces=np.broadcast_to(numbers, shape).copy(),
        face_times=times,
        face_ids=np.zeros(len(times), dtype=int),
        picture_times=times,
    )


def only(recording: Recording, keep: np.ndarray) -> Recording:
    """The recording with only these of its faces."""
    return replace(
        recording,
        faces=recording.faces[keep],
        face_times=recording.face_times[keep],
        face_ids=recording.face_ids[keep],
    )


@pytest.mark.parametrize("duration", [0.02, 0.5, 1.0, 1.0000001, 2.7, 3.0, 10.0, 61.37])
@pytest.mark.parametrize(("window", "hop"), [(1.0, 1.0), (1.0, 0.5), (1.0, 0.3), (3.6, 1.2)])
def test_windows_cover_a_recording_without_gap(duration: float, window: float, hop: float) -> None:
    windows = tile_windows(duration, window, hop)
    assert windows[0].start == 0.0
    assert windows[-1].end == pytest.approx(duration, abs=1e-6)
    for before, after in pairwise(windows):
        assert after.start == pytest.approx(before.start + hop)
        assert after.start <= before.end + 1e-9
        assert before.end < after.end
    assert all(w.end - w.start == pytest.approx(window) for w in windows[:-1])
    assert not any(w.partial for w in windows[:-1])
    assert windows[-1].partial == (windows[-1].end - windows[-1].start < window - 1e-6)


def test_windows_do_not_drift_over_hours() -> None:
    assert window_at(30_000, 1.0, 0.3) == Window(9000.0, 9001.0)
    assert len(tile_windows(36_000.0, 1.0, 0.1)) == 359_991


@pytest.mark.parametrize("hop", [0.0, -1.0, 1.1])
def test_a_hop_that_would_lose_time_is_refused(hop: float) -> None:
    with pytest.raises(ValueError, match="hop of"):
        tile_windows(10.0, 1.0, hop)


def test_the_last_pictures_of_a_window_are_taken() -> None:
    clip = make_recording().cut(Window(1.0, 2.0), CONFIG)
    assert clip.faces[:, 0, 0, 0].tolist() == list(range(35, 50))
    assert clip.face_mask.all()
    assert clip.face_share == 1.0


@pytest.mark.parametrize(("rate", "passed_over"), [(60.0, 1), (120.0, 3), (29.97, 0), (50.0, 1)])
def test_the_last_pictures_of_a_fast_recording_span_as_much_time(
    rate: float, passed_over: int
) -> None:
    times = np.arange(round(2 * rate)) / rate
    values = np.arange(len(times)).astype(np.uint8)
    faces = np.broadcast_to(values[:, None, None, None], (len(times), 16, 16, 3))
    recording = replace(
        make_recording(),
        faces=faces,
        face_times=times,
        face_ids=np.zeros(len(times), dtype=np.int32),
        picture_times=times,
    )
    clip = recording.cut(Window(0.0, 2.0), CONFIG)
    steps = np.diff(clip.faces[:, 0, 0, 0].astype(int))
    assert steps.tolist() == [passed_over + 1] * 14
    assert clip.faces[-1, 0, 0, 0] == values[-1]


def test_pictures_are_spread_evenly_over_a_legacy_window() -> None:
    config = replace(LEGACY, face_size=16)
    clip = make_recording(4.0, config).cut(Window(0.0, 3.6), config)
    middles = (np.arange(15) + 0.5) * 0.24 * 25
    assert np.abs(clip.faces[:, 0, 0, 0] - middles).max() <= 0.5 + 1e-6


def test_a_face_that_is_missing_is_masked_not_repeated() -> None:
    recording = make_recording()
    clip = only(recording, recording.face_times < 1.2).cut(Window(1.0, 2.0), CONFIG)
    assert clip.face_mask.tolist() == [True] * 5 + [False] * 10
    assert not clip.faces[5:].any()
    assert clip.face_share == pytest.approx(0.2)
    gone = only(recording, recording.face_times < 0.5).cut(Window(1.0, 2.0), CONFIG)
    assert not gone.face_mask.any()
    assert gone.face_id is None
    inputs = preprocess(gone, CONFIG)
    assert not inputs["face"].any()
    assert not inputs["face_mask"].any()
    assert inputs["speech_mask"].all()


def test_a_window_shows_one_person_only() -> None:
    recording = make_recording()
    recording.face_ids[:35] = 7  # 10 of the window's 25 pictures
    clip = recording.cut(Window(1.0, 2.0), CONFIG)
    assert clip.face_id == 0
    assert clip.face_share == pytest.approx(0.6)
    assert clip.faces[:, 0, 0, 0].min() >= 35


@pytest.mark.parametrize("level_dbfs", [-90.0, None])
def test_a_silent_window_has_no_speech(level_dbfs: float | None) -> None:
    recording = make_recording()
    if level_dbfs is None:
        recording.waveform = recording.waveform[:0]
    else:
        recording.waveform = np.ones_like(recording.waveform)
    clip = recording.cut(Window(0.0, 1.0), CONFIG)
    assert not clip.has_speech
    inputs = preprocess(clip, CONFIG)
    assert not inputs["speech_mask"].any()
    assert not inputs["speech"].any()
    assert inputs["face"].any()


def test_a_tail_is_padded_and_holds_nothing_from_elsewhere() -> None:
    clip = make_recording(2.5).cut(Window(2.0, 2.5, partial=True), CONFIG)
    context = CONFIG.speech_context
    assert len(clip.waveform) == RATE + 2 * context
    assert np.count_nonzero(clip.waveform[: context + RATE // 2]) > 0.99 * RATE // 2
    assert not clip.waveform[context + RATE // 2 :].any()
    assert clip.face_mask.sum() == 12


def test_the_sound_of_a_window_starts_at_its_first_sample() -> None:
    recording = make_recording()
    context = CONFIG.speech_context
    clip = recording.cut(Window(1.0, 2.0), CONFIG)
    wanted = recording.waveform[RATE - context : 2 * RATE + context] / np.float32(32768)
    assert np.array_equal(clip.waveform, wanted)
    shifted = replace(recording, waveform=recording.waveform[8000:], sound_start=8000)
    assert np.array_equal(shifted.cut(Window(1.0, 2.0), CONFIG).waveform, wanted)


def test_inputs_have_the_shapes_that_the_configuration_promises() -> None:
    for config in (CONFIG, replace(CONFIG, pictures=3, n_mels=40, window_seconds=2.0)):
        inputs = preprocess(make_recording(4.0, config).cut(Window(0.0, 2.0), config), config)
        side = config.face_size
        assert inputs["face"].shape == (config.pictures, 3, side, side)
        assert inputs["speech"].shape == (config.n_mels, config.speech_frames)
        assert {name: value.dtype for name, value in inputs.items()} == {
            "face": torch.float32,
            "face_mask": torch.bool,
            "landmarks": torch.float32,
            "landmarks_mask": torch.bool,
            "blendshapes": torch.float32,
            "blendshapes_mask": torch.bool,
            "speech": torch.float32,
            "speech_mask": torch.bool,
        }


def test_frames_past_a_short_window_are_masked_and_do_not_count() -> None:
    recording = make_recording()
    whole = preprocess(recording.cut(Window(1.0, 1.5), CONFIG.over(0.5)), CONFIG.over(0.5))
    padded = preprocess(recording.cut(Window(1.0, 1.5, partial=True), CONFIG), CONFIG)
    frames = whole["speech"].shape[1]
    assert padded["speech_mask"].tolist() == [True] * frames + [False] * frames
    assert not padded["speech"][:, frames:].any()
    inner = slice(0, frames - 2)  # the last frames look beyond the window, where padding is
    assert torch.allclose(padded["speech"][:, inner], whole["speech"][:, inner], atol=0.05)


def test_landmarks_are_cut_by_the_same_times_as_pictures() -> None:
    times = np.arange(0, 3, 1 / 25)
    points = np.random.default_rng(0).normal(size=(1, 68, 2)) * 20 + 300
    track = build_track(points + 100 * times[:, None, None], times)
    recording = replace(make_recording(), landmarks=track)
    clip = recording.cut(Window(1.0, 2.0), CONFIG)
    assert clip.points.shape == (CONFIG.landmark_steps, 68, 2)
    middles = 1.0 + (np.arange(30) + 0.5) / 30
    assert np.allclose(clip.points[:, 0, 0] - points[0, 0, 0], 100 * middles, atol=1e-3)
    assert clip.points_mask.all()
    late = replace(recording, landmarks=track.keep(times > 1.5)).cut(Window(1.0, 2.0), CONFIG)
    assert late.points_mask.sum() == pytest.approx(18, abs=1)
    assert not late.points[~late.points_mask].any()


def test_legacy_inputs_have_the_published_shapes() -> None:
    clip = make_recording(4.0, LEGACY, fps=5).cut(Window(0.0, 3.6), LEGACY)
    inputs = preprocess(clip, LEGACY)
    assert inputs["speech"].shape == (10, 156)
    assert inputs["face"].shape == (15, 3, 224, 224)
    oracle = librosa.feature.mfcc(y=clip.waveform, sr=22050, n_mfcc=10)
    assert np.allclose(inputs["speech"].numpy(), oracle, atol=1e-4)


def test_faces_are_scaled_and_ordered_as_configured() -> None:
    recording = make_recording()
    recording.faces[:] = (255, 127, 0)
    rgb = preprocess(recording.cut(Window(0.0, 1.0), CONFIG), CONFIG)["face"][0, :, 0, 0]
    wanted = (torch.tensor([1, 127 / 255, 0]) - torch.tensor(CONFIG.face_mean)) / torch.tensor(
        CONFIG.face_std
    )
    assert torch.allclose(rgb, wanted)
    config = replace(CONFIG, colour="bgr", face_mean=(0.0,) * 3, face_std=(1.0,) * 3)
    bgr = preprocess(recording.cut(Window(0.0, 1.0), config), config)["face"][0, :, 0, 0]
    assert torch.allclose(bgr, torch.tensor([0, 127 / 255, 1]))
    config = replace(config, colour="grey")
    grey = preprocess(recording.cut(Window(0.0, 1.0), config), config)["face"][0, :, 0, 0]
    assert torch.allclose(grey, torch.full((3,), 0.299 + 0.587 * 127 / 255), atol=3e-3)


def test_the_log_mel_equals_librosas() -> None:
    clip = make_recording().cut(Window(1.0, 2.0), CONFIG)
    power = librosa.feature.melspectrogram(
        y=clip.waveform,
        sr=RATE,
        n_fft=CONFIG.n_fft,
        win_length=CONFIG.win_length,
        hop_length=CONFIG.hop_length,
        n_mels=CONFIG.n_mels,
        fmin=CONFIG.f_min,
        fmax=CONFIG.f_max,
        htk=True,
        norm=None,
        center=False,
    )
    level = np.percentile(np.log(power.sum(axis=0) + 1e-10), 95)
    relative = np.maximum(np.log(power + 1e-10) - level, -LOG_MEL_RANGE)
    oracle = (relative + LOG_MEL_RANGE / 2) / (LOG_MEL_RANGE / 4)
    speech = preprocess(clip, CONFIG)["speech"].numpy()
    assert speech.shape == (64, 100)
    assert np.abs(speech - oracle).max() < 1e-3


@pytest.mark.parametrize("gain", [0.03, 0.3, 3.0])
def test_the_log_mel_does_not_depend_on_gain(gain: float) -> None:
    clip = make_recording().cut(Window(1.0, 2.0), CONFIG)
    louder = replace(clip, waveform=clip.waveform * np.float32(gain))
    difference = preprocess(louder, CONFIG)["speech"] - preprocess(clip, CONFIG)["speech"]
    assert difference.abs().max() < 5e-3


def test_a_frame_is_centred_on_its_hop() -> None:
    recording = make_recording()
    recording.waveform[:] = 0
    recording.waveform[RATE + 50 * 160 + 80] = 30000  # the middle of the window's 51st hop
    speech = preprocess(recording.cut(Window(1.0, 2.0), CONFIG), CONFIG)["speech"]
    assert int(speech.sum(dim=0).argmax()) == 50


def test_preprocessing_is_deterministic_and_leaves_the_clip_alone() -> None:
    clip = make_recording().cut(Window(1.0, 2.0), CONFIG)
    before = clip.waveform.copy(), clip.faces.copy()
    first, second = preprocess(clip, CONFIG), preprocess(clip, CONFIG)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert np.array_equal(clip.waveform, before[0])
    assert np.array_equal(clip.faces, before[1])


def _slides(*times: float, seconds: float = 12.0) -> Recording:
    """Pictures that each stay until the next, a face in all."""
    count = len(times)
    return replace(
        make_recording(seconds),
        faces=np.stack([np.full((16, 16, 3), i + 1, np.uint8) for i in range(count)]),
        face_times=np.array(times),
        face_ids=np.zeros(count, dtype=np.int64),
        picture_times=np.array(times),
    )


@pytest.mark.parametrize("choice", ["last", "even"])
def test_a_face_is_shown_until_the_next_picture_replaces_it(choice: str) -> None:
    config = replace(CONFIG, picture_choice=choice)
    slides = _slides(0.0, 2.0, 4.0)
    seen = [
        int(clip.faces[clip.face_mask][0, 0, 0, 0]) if clip.face_mask.any() else 0
        for clip in (slides.cut(window, config) for window in tile_windows(12.0, 1.0, 1.0))
    ]
    assert seen == [1, 1, 2, 2, 3, 3, 3, 3, 3, 0, 0, 0]  # for five seconds at most
    shares = [slides.cut(Window(s, s + 1.0), config).face_share for s in (1.0, 8.0, 9.0)]
    assert shares == [1.0, 1.0, 0.0]


def test_a_picture_without_a_face_replaces_one_with_a_face() -> None:
    slides = _slides(0.0, 2.0)
    without = replace(slides, faces=slides.faces[:1], face_times=slides.face_times[:1])
    without = replace(without, face_ids=slides.face_ids[:1])
    assert without.cut(Window(1.0, 2.0), CONFIG).face_mask.any()
    assert not without.cut(Window(3.0, 4.0), CONFIG).face_mask.any()


@pytest.mark.parametrize(("seconds", "speaks"), [(0.09, False), (0.11, True)])
def test_a_moment_of_sound_holds_no_speech(seconds: float, speaks: bool) -> None:
    recording = make_recording(2.0)
    clip = recording.cut(Window(1.0, 1.0 + seconds, partial=True), CONFIG)
    assert clip.has_speech == speaks
