"""Media files to recordings and clips, in one demux pass.

Sound and pictures are decoded together into blocks; `read_recording` joins them all, and
`stream_clips` keeps only as many as a window needs, so its memory does not grow with the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np

from media.ahead import running_ahead
from media.audio import SoundTrack
from media.blendshapes import empty_meshes, max_gap
from media.clip import (
    SHOWN_SECONDS,
    Clip,
    ClipConfig,
    Recording,
    Window,
    check_hop,
    tile_windows,
    window_at,
)
from media.demux import (
    DAMAGED,
    Damage,
    choose_streams,
    declared_duration,
    decode_packet,
    is_still,
    open_media,
    promised_duration,
    read_origin,
    read_packets,
)
from media.errors import MediaError
from media.landmarks import empty_track
from media.mesh import MeshReading
from media.sound import sound_span
from media.tracks import extend_landmarks, extend_meshes
from media.video import PictureTrack
from media.voice_track import FRAMES_PER_SECOND, SPREAD, empty_voice

if TYPE_CHECKING:
    from media.faces import Detector, FacePicture, FaceTracker
    from media.landmarker import Landmarker
    from media.voice import VoiceDetector

    Locator = Landmarker | MeshReading

# Decoded in a thread while faces are looked for: enough to bridge one batch of the detector.
PACKETS_AHEAD, BYTES_AHEAD = 48, 96 * 2**20
LEAST_SECONDS = 1e-3  # a recording that is shorter has no row in a table of milliseconds
BLOCK_SECONDS = 1.0  # how much is gathered before it is handed on
# A stream that falls behind the other by as much has ended or pauses, and is not waited for.
SOUND_LAG = 30.0
PICTURES_LAG = 600.0  # waiting for pictures only costs memory for sound; slide shows pause for long


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


@dataclass(frozen=True)
class _Block:
    """Decoded media that follow on those of the block before.

    After a block everything before `known` (seconds) has been given; the last block's `known` is
    the recording's duration. `still` says that there is but one frame, which stands for all of it.
    """

    samples: np.ndarray
    pictures: list[FacePicture]
    voice: np.ndarray
    known: float
    still: bool = False


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
    read = _read_blocks(path, config, detector, landmarker, tell)
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
    read = _read_blocks(path, config, detector, landmarker, tell)
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
    blocks: Iterator[_Block],
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


def _extend(recording: Recording, blocks: list[_Block]) -> Recording:
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
    blocks: Iterator[_Block], path: Path, progress: Callable[[float], None] | None
) -> Iterator[_Block]:
    """Pass blocks through and tell how far they are; the declared length is only a guess."""
    if progress is None:
        yield from blocks
        return
    total = probe(path).duration or float("inf")
    for block in blocks:
        progress(min(0.99, block.known / total))
        yield block
    progress(1.0)


def _build_tracker(
    detector: Detector, config: ClipConfig, landmarker: Locator | None
) -> FaceTracker:
    from media.faces import FaceTracker  # takes seconds to import, and sound alone needs none

    return FaceTracker(detector, config, landmarker)


def _build_listener(config: ClipConfig) -> VoiceDetector:
    from media.voice import VoiceDetector  # torch comes with it, and faces alone need none

    return VoiceDetector(config.sample_rate)


def _read_blocks(
    path: Path,
    config: ClipConfig,
    detector: Detector | None,
    landmarker: Locator | None = None,
    tell: Callable[[str], None] | None = None,
) -> Iterator[_Block]:
    tracker = None if detector is None else _build_tracker(detector, config, landmarker)
    with open_media(path) as container:
        video, audio = choose_streams(container, path)
        decoding = _Decoding(config, tracker, video, audio)
        handed_on = 0.0
        streams = [stream for stream in (video, audio) if stream is not None]
        unwanted = video if detector is None else None
        damage = Damage()
        packets = _decode(container, streams, unwanted, damage)
        with running_ahead(packets, _count_ahead(video)) as decoded:
            for packet, frames in decoded:
                decoding.take(packet, frames)
                if decoding.known - handed_on >= BLOCK_SECONDS:
                    handed_on = decoding.known
                    yield decoding.hand_on(handed_on)
        duration = decoding.finish()
        still = is_still(container) and video is not None
        if still:
            duration = max(duration, config.window_seconds)
        if 0 < duration < LEAST_SECONDS:
            raise MediaError(
                f"{path}: lasts less than a millisecond; give a recording of at least 0.1 s"
            )
        if duration <= 0:
            raise MediaError(f"{path}: no sound or picture in it can be decoded; {DAMAGED}")
        if tell is not None:
            promised = None if still else promised_duration(container, streams)
            for note in [*decoding.notes(), *damage.notes(duration, promised)]:
                tell(note)
        yield replace(decoding.hand_on(duration), still=still)


def _count_ahead(video: av.VideoStream | None) -> int:
    """Packets that may wait decoded; fewer where pictures are large."""
    size = video.codec_context.width * video.codec_context.height * 3 // 2 if video else 0
    return max(8, min(PACKETS_AHEAD, BYTES_AHEAD // max(1, size)))


def _decode(
    container: av.container.InputContainer,
    streams: Sequence[av.stream.Stream],
    unwanted: av.stream.Stream | None,
    damage: Damage,
) -> Iterator[tuple[av.Packet, list[av.frame.Frame]]]:
    """Packets and the frames in them; those of an unwanted stream are not decoded."""
    for packet in read_packets(container, streams, damage):
        yield packet, [] if packet.stream is unwanted else decode_packet(packet, damage)


class _Decoding:
    """Sound and pictures of one file, on one time line.

    `known` (seconds) is the time before which nothing more will come.
    """

    def __init__(
        self,
        config: ClipConfig,
        tracker: FaceTracker | None,
        video: av.VideoStream | None,
        audio: av.AudioStream | None,
    ) -> None:
        origin = read_origin([stream for stream in (video, audio) if stream is not None])
        self._sound = SoundTrack(config.sample_rate, origin) if audio else None
        self._listener = _build_listener(config) if audio and config.voice_activity else None
        self._voice: list[np.ndarray] = []
        self._track = PictureTrack(video, origin) if video else None
        self._tracker = tracker if video else None
        self._samples: list[np.ndarray] = []
        self._pictures: list[FacePicture] = []
        self._settled = 0.0  # seconds: pictures before have their faces
        self._origin = origin

    @property
    def known(self) -> float:
        ends = [self._sound.end] if self._sound else []
        ends += [self._settled] if self._track else []
        ends += [self._listener.end] if self._listener else []
        return min(ends)

    def take(self, packet: av.Packet, frames: list[av.frame.Frame]) -> None:
        """Take in a packet and the frames decoded from it."""
        if self._tracker is None and packet.stream.type == "video":
            self._note_end(packet)
        for frame in frames:
            if isinstance(frame, av.AudioFrame) and self._sound:
                self._hear(self._sound.add(frame))
            elif isinstance(frame, av.VideoFrame) and self._tracker:
                self._add_picture(frame, self._tracker)
        self._pass_laggard()

    def finish(self) -> float:
        """Give out what is held back. Returns the duration in seconds."""
        self._settle()
        if self._sound:
            self._hear(self._sound.finish())
        if self._listener:
            self._voice.append(self._listener.finish())
        ends = [track.end for track in (self._sound, self._track) if track is not None]
        return max(ends)

    def notes(self) -> list[str]:
        """Lines on what of the sound could not be used."""
        return self._sound.notes if self._sound else []

    def hand_on(self, known: float) -> _Block:
        samples = np.concatenate([np.zeros(0, dtype=np.int16), *self._samples])
        voice = np.concatenate([np.zeros(0, dtype=np.float16), *self._voice])
        block = _Block(samples, self._pictures, voice, known)
        self._samples, self._pictures, self._voice = [], [], []
        return block

    def _hear(self, pieces: Iterable[np.ndarray]) -> None:
        for samples in pieces:
            self._samples.append(samples)
            if self._listener:
                self._voice.append(self._listener.add(samples))

    def _add_picture(self, frame: av.VideoFrame, tracker: FaceTracker) -> None:
        picture = self._track.add(frame) if self._track else None
        if picture is None or picture.time < self._settled:  # came too late to be waited for
            return
        self._pictures += tracker.push(picture)
        if self._pictures:
            self._settled = max(self._settled, self._pictures[-1].time)

    def _note_end(self, packet: av.Packet) -> None:
        """Pictures are not wanted, but how long they last is."""
        if self._track and packet.pts is not None and not packet.is_discard:
            time = float(packet.pts * packet.time_base) - self._origin
            length = float((packet.duration or 0) * packet.time_base)
            self._track.end = max(self._track.end, time + length)
            self._settled = self._track.end

    def _settle(self) -> None:
        if self._tracker is not None:
            self._pictures += self._tracker.flush()
            if self._pictures:
                self._settled = max(self._settled, self._pictures[-1].time)

    def _pass_laggard(self) -> None:
        """Stop waiting for a stream that is far behind the other."""
        if self._sound is None or self._track is None:
            return
        if self._sound.end - self._settled > PICTURES_LAG:
            self._settle()
            self._settled = max(self._settled, self._sound.end - PICTURES_LAG)
        if self._settled - self._sound.end > SOUND_LAG:
            self._hear(self._sound.fill_until(self._settled - SOUND_LAG))
