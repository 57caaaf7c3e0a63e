"""Sound and frames of a file, decoded together in one demux pass and handed on in blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np

from media.ahead import running_ahead
from media.audio import SoundTrack
from media.configuration import ClipConfig
from media.demux import (
    DAMAGED,
    Damage,
    choose_streams,
    decode_packet,
    is_still,
    open_media,
    promised_duration,
    read_origin,
    read_packets,
)
from media.errors import MediaError
from media.mesh import MeshReading
from media.video import PictureTrack

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
class Block:
    """Decoded media that follow on those of the block before.

    After a block everything before `known` (seconds) has been given; the last block's `known` is
    the recording's duration. `still` says that there is but one frame, which stands for all of it.
    """

    samples: np.ndarray
    pictures: list[FacePicture]
    voice: np.ndarray
    known: float
    still: bool = False


def read_blocks(
    path: Path,
    config: ClipConfig,
    detector: Detector | None,
    landmarker: Locator | None = None,
    tell: Callable[[str], None] | None = None,
) -> Iterator[Block]:
    """Blocks of a file, as `read_recording` reads it (its arguments are described there).

    Raises:
        MediaError: the file cannot be used (when the first block is asked for).
    """
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


def _build_tracker(
    detector: Detector, config: ClipConfig, landmarker: Locator | None
) -> FaceTracker:
    from media.faces import FaceTracker  # takes seconds to import, and sound alone needs none

    return FaceTracker(detector, config, landmarker)


def _build_listener(config: ClipConfig) -> VoiceDetector:
    from media.voice import VoiceDetector  # torch comes with it, and faces alone need none

    return VoiceDetector(config.sample_rate)


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

    def hand_on(self, known: float) -> Block:
        samples = np.concatenate([np.zeros(0, dtype=np.int16), *self._samples])
        voice = np.concatenate([np.zeros(0, dtype=np.float16), *self._voice])
        block = Block(samples, self._pictures, voice, known)
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
