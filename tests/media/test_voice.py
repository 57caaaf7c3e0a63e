"""The voice detector: equal to the published network, however the sound arrives."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

import media.voice
from media.configuration import ClipConfig
from media.reading import read_recording
from media.voice import CONTEXT, WEIGHTS, VoiceDetector, find_voice, load_network
from media.voice_track import FRAME, RATE
from tests.conftest import REAL_DATA
from tests.sounds import hiss, play, talk, to_samples, tone

# Every fifth probability of the published network (TorchScript of silero-vad 6.2.3 with the tensors
# of its safetensors file) over `mixed()`.
PUBLISHED = (0.0118, 0.0142, 0.0137, 0.5127, 0.9829, 0.9974, 0.9939, 0.9936)
PUBLISHED += (0.9886, 0.9945, 0.9823, 0.9708, 0.9499, 0.83, 0.6299)


def mixed() -> np.ndarray:
    return to_samples(np.concatenate([hiss(0.4), talk(1.2), play(0.8)]))


def test_probabilities_are_those_of_the_published_network() -> None:
    found = find_voice(mixed(), RATE).probabilities
    assert found.dtype == np.float16
    assert len(found) == 75  # 2.4 s
    assert np.allclose(found[::5].astype(float), PUBLISHED, atol=6e-4)  # rounding to 16 bits


@pytest.mark.skipif(find_spec("silero_vad") is None, reason="the package silero-vad is not here")
def test_the_published_network_run_frame_by_frame_gives_the_same() -> None:
    package = find_spec("silero_vad")
    assert package is not None
    assert package.origin is not None
    published = torch.jit.load(str(Path(package.origin).parent / "data" / "silero_vad.jit"))
    here = load_network()
    with torch.no_grad():
        for name, tensor in published._model.state_dict().items():
            tensor.copy_(here.state_dict()[_name_here(name)])
    sound = torch.from_numpy(mixed().astype(np.float32) / 32768)
    published.reset_states()
    wanted = [published(frame[None], RATE).item() for frame in sound.split(FRAME)]
    frames = torch.nn.functional.pad(sound, (CONTEXT, 0)).unfold(0, CONTEXT + FRAME, FRAME)
    with torch.inference_mode():
        found, _ = here(frames)
    assert np.allclose(found.numpy(), wanted, atol=2e-5)


def _name_here(name: str) -> str:
    for before, after in (
        ("stft.forward_basis_buffer", "stft_conv.weight"),
        ("decoder.decoder.2", "final_conv"),
        ("decoder.rnn.", "lstm."),
        ("encoder.0.reparam_conv", "conv1"),
        ("encoder.1.reparam_conv", "conv2"),
        ("encoder.2.reparam_conv", "conv3"),
        ("encoder.3.reparam_conv", "conv4"),
    ):
        name = name.replace(before, after)
    return f"{name}_l0" if name.startswith("lstm.") else name


@pytest.mark.parametrize("rate", [16000, 22050, 8000])
def test_a_sound_in_parts_of_any_length_gives_the_same_as_the_whole(rate: int) -> None:
    sound = to_samples(np.concatenate([talk(4.0), hiss(1.03)]))
    whole = find_voice(sound, rate).probabilities
    rng = np.random.default_rng(0)
    detector, found, start = VoiceDetector(rate), [], 0
    while start < len(sound):
        length = int(rng.choice([0, 1, 100, 511, 512, 5000, 40000]))
        found.append(detector.add(sound[start : start + length]))
        assert detector.end == pytest.approx(sum(map(len, found)) * FRAME / RATE)
        start += length
    found.append(detector.finish())
    assert np.array_equal(np.concatenate(found), whole)
    assert len(whole) == pytest.approx(len(sound) / rate * RATE / FRAME, abs=1.5)


def test_a_detector_without_sound_finds_nothing() -> None:
    for rate in (16000, 22050):
        assert len(find_voice(np.zeros(0, np.int16), rate).probabilities) == 0


def test_what_comes_later_changes_nothing_before_its_piece() -> None:
    sound = to_samples(talk(6.0))
    other = sound.copy()
    other[media.voice.PIECE * FRAME :] = to_samples(hiss(6.0))[media.voice.PIECE * FRAME :]
    kept = slice(0, media.voice.PIECE)
    first, second = (find_voice(s, RATE).probabilities for s in (sound, other))
    assert np.array_equal(first[kept], second[kept])
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    "make", [hiss, tone, play, lambda s: tone(s, 150.0), lambda s: 0 * tone(s)]
)
@pytest.mark.parametrize("gain", [0.1, 1.0])
def test_music_noise_tones_and_silence_are_no_voice(
    make: Callable[[float], np.ndarray], gain: float
) -> None:
    found = find_voice(to_samples(gain * make(8.0)), RATE).probabilities
    assert found.max() < 0.25


@pytest.mark.parametrize("gain", [0.1, 1.0])
def test_talk_is_a_voice_loud_or_quiet(gain: float) -> None:
    found = find_voice(to_samples(gain * talk(4.0)), RATE).probabilities
    assert (found > 0.3).mean() > 0.8


def test_at_another_rate_talk_is_found_at_the_same_time() -> None:
    sound = np.concatenate([hiss(1.0), talk(2.0)])
    slower = np.interp(np.arange(0, 3, 1 / 22050), np.arange(len(sound)) / RATE, sound)
    starts = [
        int(np.flatnonzero(find_voice(to_samples(s), rate).probabilities > 0.3)[0])
        for s, rate in ((sound, RATE), (slower, 22050))
    ]
    assert starts[0] / 31.25 == pytest.approx(1.0, abs=0.15)
    assert starts[1] == pytest.approx(starts[0], abs=1)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "silero_vad_16k.safetensors"
    with pytest.raises(ValueError, match="no weights of the voice detector"):
        load_network(path)
    path.write_bytes(WEIGHTS.read_bytes()[:-1] + b"\0")
    with pytest.raises(ValueError, match="damaged"):
        load_network(path)


@pytest.mark.data
@pytest.mark.parametrize("emotion", ["01", "02", "04", "05", "06"])
def test_acted_speech_is_a_voice_and_its_silence_is_not(emotion: str) -> None:
    paths = sorted((REAL_DATA / "ravdess_speech").glob(f"Actor_1?/03-01-{emotion}-*"))[::17]
    assert paths
    for path in paths:
        waveform = read_recording(path, ClipConfig(), None).waveform
        found = find_voice(waveform, RATE).probabilities > 0.3
        assert 0.2 < found.mean() < 0.9, path.name  # silence before and after
        assert not found[:8].any(), path.name
