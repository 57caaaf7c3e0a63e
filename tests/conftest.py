"""Small media files made on the spot, and what marks a test that needs real ones."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
import pytest

from datasets.demo_clip import read_portrait
from models.whisper_encoder import SIZES, WhisperSize

REAL_DATA = Path(__file__).parents[2] / "shared" / "data"
RATE = 16000  # Hz, of the generated sound
FPS = 25
EVENT = 1.2  # seconds: when the flash and the beep of the talking face are


class WriteMedia(Protocol):
    """Signature of the `write_media` fixture's function."""

    def __call__(self, path: Path, pictures: Any = (), **options: Any) -> Path: ...


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the real data where they are not."""
    if REAL_DATA.is_dir():
        return
    for item in items:
        if "data" in item.keywords:
            item.add_marker(pytest.mark.skip(reason=f"no real data at {REAL_DATA}"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real media; only for tests marked `data`."""
    return REAL_DATA


@pytest.fixture(scope="session")
def write_media() -> WriteMedia:
    """A function that encodes pictures and sound into a file."""
    return _write_media


@pytest.fixture(scope="session")
def face_picture() -> np.ndarray:
    """(240, 320, 3) uint8 RGB: a portrait in which MTCNN finds one face."""
    picture = np.full((240, 320, 3), 90, dtype=np.uint8)
    picture[:, 40:280] = read_portrait()[0:240, 100:340]
    return picture


@pytest.fixture(scope="session")
def talking_pictures(face_picture: np.ndarray) -> list[np.ndarray]:
    """60 pictures (2.4 s) of a swaying face, one of them a flash at `EVENT`."""
    pictures = []
    for index in range(60):
        shift = round(12 * np.sin(index / 6))
        picture = np.roll(face_picture, shift, axis=1)
        flash = index == round(EVENT * FPS)
        pictures.append(picture // 2 + 127 if flash else picture)
    return pictures


@pytest.fixture(scope="session")
def beep() -> np.ndarray:
    """(38400,) float32: 2.4 s of faint noise (-70 dBFS) with 0.1 s of 1 kHz at `EVENT`."""
    sound = np.random.default_rng(0).normal(0, 0.0003, round(2.4 * RATE)).astype(np.float32)
    start, length = round(EVENT * RATE), round(0.1 * RATE)
    sound[start : start + length] += 0.8 * np.sin(2 * np.pi * 1000 * np.arange(length) / RATE)
    return sound


@pytest.fixture(scope="session")
def talking_face(
    tmp_path_factory: pytest.TempPathFactory, talking_pictures: list[np.ndarray], beep: np.ndarray
) -> Path:
    """2.4 s of a face at 25 pictures a second, with sound; flash and beep at `EVENT`."""
    path = tmp_path_factory.mktemp("media") / "talking_face.mp4"
    return _write_media(path, talking_pictures, sound=beep)


def _write_media(
    path: Path,
    pictures: Any = (),
    *,
    times: list[float] | None = None,
    sound: np.ndarray | None = None,
    sound_start: float = 0.0,
    video_codec: str = "libx264",
    audio_codec: str = "aac",
    rotation: tuple[float, bool] | None = None,
    cover: np.ndarray | None = None,
) -> Path:
    """Encode RGB pictures and (N,) or (N, 2) float sound at `RATE`; returns the path."""
    with av.open(str(path), "w") as container:
        video = audio = None
        if len(pictures):
            video = _add_video(container, pictures[0].shape, video_codec, rotation)
        if sound is not None:
            audio = container.add_stream(audio_codec, rate=RATE)
            audio.codec_context.layout = "mono" if sound.ndim == 1 else "stereo"
        art = _add_cover(container, cover) if cover is not None else None
        packets = [*_video_packets(video, pictures, times)] if video else []
        packets += [*_audio_packets(audio, sound, sound_start)] if sound is not None else []
        packets += _cover_packets(art, cover) if cover is not None else []
        for packet in sorted(packets, key=lambda p: float((p.dts or 0) * p.time_base)):
            container.mux(packet)
    return path


def _add_video(
    container: Any, shape: tuple[int, ...], codec: str, rotation: tuple[float, bool] | None
) -> Any:
    video = container.add_stream(codec, rate=FPS)
    video.height, video.width = shape[:2]
    video.pix_fmt = "yuv420p"
    video.bit_rate = 2_000_000
    video.codec_context.time_base = Fraction(1, 1000 if codec == "libx264" else FPS)
    if codec == "libx264":
        video.options = {"crf": "12", "preset": "ultrafast"}
    if rotation is not None:
        video.set_display_rotation(rotation[0], hflip=rotation[1])
    return video


def _video_packets(video: Any, pictures: Any, times: list[float] | None) -> Iterator[Any]:
    base = video.codec_context.time_base
    for index, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        time = index / FPS if times is None else times[index]
        frame.pts, frame.time_base = round(time / base), base
        yield from video.encode(frame)
    yield from video.encode(None)


def _audio_packets(audio: Any, sound: np.ndarray, start: float) -> Iterator[Any]:
    whole = np.round(np.clip(sound, -1, 1) * 32767).astype(np.int16)
    layout = "mono" if sound.ndim == 1 else "stereo"
    fifo = av.AudioResampler(format=audio.format, layout=layout, rate=RATE)
    for first in range(0, len(whole), 1000):
        frame = av.AudioFrame.from_ndarray(
            whole[first : first + 1000].reshape(1, -1), format="s16", layout=layout
        )
        frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
        frame.pts = round(start * RATE) + first
        for converted in fifo.resample(frame):
            yield from audio.encode(converted)
    yield from audio.encode(None)


def _add_cover(container: Any, cover: np.ndarray) -> Any:
    art = container.add_stream("png", rate=1)
    art.height, art.width = cover.shape[:2]
    art.pix_fmt = "rgb24"
    art.disposition = av.stream.Disposition.attached_pic
    return art


def _cover_packets(art: Any, cover: np.ndarray) -> list[Any]:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(cover), format="rgb24")
    frame.pts = 0
    return [*art.encode(frame), *art.encode(None)]


@pytest.fixture
def small_whisper(monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder of two narrow layers stands for `tiny`."""
    monkeypatch.setitem(SIZES, "tiny", WhisperSize(128, 2))
