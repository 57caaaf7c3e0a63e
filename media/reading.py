"""Media files to recordings and clips, in one demux pass.

Sound and pictures are decoded together into blocks; `read_recording` joins them all, and
`stream_clips` keeps only as many as a window needs, so its memory does not grow with the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from media.blendshapes import empty_meshes, max_gap
from media.clip import Clip, Window, check_hop, tile_windows, window_at
from media.configuration import ClipConfig
from media.decoding import Block, read_blocks
from media.demux import choose_streams, declared_duration, open_media
from media.landmarks import empty_track
from media.mesh import MeshReading
from media.recording import SHOWN_SECONDS, Recording
from media.sound import sound_span
from media.tracks import extend_landmarks, extend_meshes
from media.voice_track import FRAMES_PER_SECOND, SPREAD, empty_voice

if TYPE_CHECKING:
    from media.decoding import Locator
    from media.faces import Detector


@dataclass(frozen=True)
class MediaInfo:
    """What a file says of itself, without decoding it. Width and height are as stored, in pixels.

    `duration` is in seconds and an estimate; None, and 0 for pictures, where the file does not say.
    """

    duration: float | None
    has_audio: bool
    has_video: bool
    width: int
    height: int
    fps: float


def probe(path: Path) -> MediaInfo:
    """What the file says of itself.

    Raises:
        MediaError: the file cannot be opened, or has neither sound nor pictures.
    """
    with open_media(path) as container:
        video, audio = choose_streams(container, path)
        return MediaInfo(
            duration=declared_duration(container),
            has_audio=audio is not None,
            has_video=video is not None,
            width=video.codec_context.width if video else 0,
            height=video.codec_context.height if video else 0,
            fps=float(video.average_rate or 0) if video else 0.0,
        )


def read_recording(
    path: Path,
    config: ClipConfig,
    detector: Detector | None,
    progress: Callable[[float], None] | None = None,
    landmarker: Locator | None = None,
    tell: Callable[[str], None] | None = None,
) -> Recording:
    """Decode a whole file. For short files: it is held in memory.

    A still picture lasts one window. Damaged packets are skipped; times stay exact.

    Args:
        path: any file that FFmpeg reads.
        config: the constants.
        detector: finds faces; with None no picture is decoded, for speech alone.
        progress: is told the share that is done, 0 to 1.
        landmarker: finds the 68 points of the followed face, or reads its mesh (and the points off
            it); with None neither.
        tell: is told, line by line, what of the file could not be used.

    Raises:
        ValueError: a landmarker without a detector, in whose boxes it would look.
        MediaError: the file cannot be used.
    """
    _check_finders(detector, landmarker)
    recording = _empty_recording(path, config, landmarker)
    read = read_blocks(path, config, detector, landmarker, tell)
    blocks = list(_report(read, path, progress))
    return _extend(recording, blocks)


def stream_clips(  # noqa: PLR0913 - what a reader of files needs, each of them optional
    path: Path,
    config: ClipConfig,
    detector: Detector | None,
    hop_seconds: float,
    progress: Callable[[float], None] | None = None,
    landmarker: Locator | None = None,
    tell: Callable[[str], None] | None = None,
) -> Iterator[Clip]:
    """Clips of the windows that tile a file, as it is decoded. Memory does not grow with length.

    They equal those cut from `read_recording` at the windows of `tile_windows`. What of the file
    could not be used is told before the last clips are given.

    Raises:
        ValueError: the hop is not positive, or longer than a window; a landmarker without a
            detector.
        MediaError: the file cannot be used (when the first clip is asked for).
    """
    check_hop(config.window_seconds, hop_seconds)
    _check_finders(detector, landmarker)
    read = read_blocks(path, config, detector, landmarker, tell)
    blocks = _report(read, path, progress)
    recording = _empty_recording(path, config, landmarker)
    context = 0.0
    if landmarker is not None:
        context = max(recording.landmarks.max_gap, recording.meshes.max_gap)
    if config.voice_activity:
        heard = config.speech_context_seconds + config.speech_context / config.sample_rate
        context = max(context, heard + SPREAD + 1 / FRAMES_PER_SECOND)
    return _slide(recording, blocks, config, hop_seconds, context)


def _check_finders(detector: Detector | None, landmarker: Locator | None) -> None:
    if landmarker is not None and detector is None:
        raise ValueError("points are looked for in the boxes of faces: name a detector too")


def _slide(
    recording: Recording,
    blocks: Iterator[Block],
    config: ClipConfig,
    hop_seconds: float,
    context: float,
) -> Iterator[Clip]:
    """Clips from blocks; each sees its sound and `context` seconds on both sides of its window."""
    index = 0
    for block in blocks:
        recording = _extend(recording, [block])
        window = window_at(index, config.window_seconds, hop_seconds)
        while _needed(window, config, context)[1] <= recording.duration:
            yield recording.cut(window, config)
            index += 1
            window = window_at(index, config.window_seconds, hop_seconds)
        recording = _drop_before(recording, _needed(window, config, context)[0], config)
    for window in tile_windows(recording.duration, config.window_seconds, hop_seconds)[index:]:
        yield recording.cut(window, config)


def _needed(window: Window, config: ClipConfig, context: float) -> tuple[float, float]:
    """From and until when (seconds) a window needs the recording."""
    first, last = sound_span(window, config)
    return min(first, window.start - context), max(last, window.end + context)


def _empty_recording(path: Path, config: ClipConfig, landmarker: Locator | None) -> Recording:
    side = config.face_size
    meshes, landmarks = empty_meshes(max_gap(config.mesh_rate)), empty_track()
    if isinstance(landmarker, MeshReading) and landmarker.landmarker is None:
        landmarks = replace(landmarks, max_gap=meshes.max_gap)
    return Recording(
        path=path,
        duration=0.0,
        waveform=np.zeros(0, dtype=np.int16),
        faces=np.zeros((0, side, side, 3), dtype=np.uint8),
        face_times=np.zeros(0),
        face_ids=np.zeros(0, dtype=np.int64),
        picture_times=np.zeros(0),
        voice=empty_voice() if config.voice_activity else None,
        landmarks=landmarks,
        meshes=meshes,
    )


def _extend(recording: Recording, blocks: list[Block]) -> Recording:
    """The recording and what follows on it; its duration is what is known so far."""
    pictures = [picture for block in blocks for picture in block.pictures]
    shown = [picture for picture in pictures if picture.face is not None]
    faces = [picture.face for picture in shown if picture.face is not None]
    times = [picture.time for picture in shown]
    ids = np.array([picture.face_id for picture in shown], dtype=np.int64)
    voice = recording.voice
    return Recording(
        path=recording.path,
        duration=blocks[-1].known,
        waveform=np.concatenate([recording.waveform, *(block.samples for block in blocks)]),
        faces=np.concatenate([recording.faces, np.stack(faces)]) if faces else recording.faces,
        face_times=np.concatenate([recording.face_times, times]),
        face_ids=np.concatenate([recording.face_ids, ids]),
        picture_times=np.concatenate(
            [recording.picture_times, [picture.time for picture in pictures]]
        ),
        landmarks=extend_landmarks(recording.landmarks, shown, blocks[-1].still),
        meshes=extend_meshes(recording.meshes, shown, blocks[-1].still),
        sound_start=recording.sound_start,
        voice=voice.followed_by([block.voice for block in blocks]) if voice is not None else None,
    )


def _drop_before(recording: Recording, seconds: float, config: ClipConfig) -> Recording:
    kept_from = _shown_from(recording.picture_times, seconds)
    faces = recording.face_times >= kept_from
    dropped = int(max(0.0, seconds) * config.sample_rate) - recording.sound_start
    dropped = min(max(0, dropped), len(recording.waveform))
    return Recording(
        path=recording.path,
        duration=recording.duration,
        waveform=recording.waveform[dropped:].copy(),  # a view would keep the whole alive
        faces=recording.faces[faces],
        face_times=recording.face_times[faces],
        face_ids=recording.face_ids[faces],
        picture_times=recording.picture_times[recording.picture_times >= kept_from],
        landmarks=recording.landmarks.keep(recording.landmarks.times >= seconds),
        meshes=recording.meshes.keep(recording.meshes.times >= seconds),
        sound_start=recording.sound_start + dropped,
        voice=recording.voice.after(seconds) if recording.voice is not None else None,
    )


def _shown_from(picture_times: np.ndarray, seconds: float) -> float:
    """When the picture began that is shown at a time; the time itself where none is any more."""
    earlier = picture_times[picture_times < seconds]
    shown = len(earlier) and seconds - earlier[-1] < SHOWN_SECONDS
    return float(earlier[-1]) if shown else seconds


def _report(
    blocks: Iterator[Block], path: Path, progress: Callable[[float], None] | None
) -> Iterator[Block]:
    """Pass blocks through and tell how far they are; the declared length is only a guess."""
    if progress is None:
        yield from blocks
        return
    total = probe(path).duration or float("inf")
    for block in blocks:
        progress(min(0.99, block.known / total))
        yield block
    progress(1.0)
