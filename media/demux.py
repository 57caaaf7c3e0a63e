"""Packets of a media file: opening, the choice of streams, and reading past what is broken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import av

from media.errors import MediaError
from system.pointers import LFS_REMEDY, is_lfs_pointer

DAMAGED = "it is damaged, or no media file: convert or copy it again"
# Formats whose header says how long the file is, as it was meant to be; others are estimated from
# what there is of them.
_STATING = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "flv", "asf", "flac", "aiff", "au", "mxf"}
_RIFF = {"wav", "avi"}  # FFmpeg corrects what their headers say by the size of the file
MISSING_SECONDS = 0.25  # by which a file may end before it says, as containers round
TS_DISCONT = 0x0200  # AVFMT_TS_DISCONT
MOST_PIXELS = 2**26  # of a picture; 8K video has half as many
READ_ATTEMPTS = 8  # in a row, at a damaged place of a file
# Seconds between packets of a stream that tell that its clock was set anew.
JUMP_BACK, JUMP_AHEAD = 1.0, 10.0


@contextmanager
def open_media(path: Path) -> Iterator[av.container.InputContainer]:
    """Open a file, or say in one line why it cannot be.

    Raises:
        MediaError: here or while it is open, for whatever FFmpeg has against the file.
    """
    _check_file(path)
    try:
        with av.open(f"file:{path}", metadata_errors="ignore") as container:
            yield container
    except av.FFmpegError as error:
        raise MediaError(f"{path}: cannot be read ({error.strerror}); {DAMAGED}") from error


def _check_file(path: Path) -> None:
    try:
        if path.is_dir():
            raise MediaError(f"{path}: is a folder; name a media file in it")
        if not path.exists():
            raise MediaError(f"{path}: does not exist; check the path")
        if not path.is_file():
            raise MediaError(f"{path}: is a pipe or device; save the recording to a file first")
        if path.stat().st_size == 0:
            raise MediaError(f"{path}: is empty (0 bytes); copy or record it again")
        if is_lfs_pointer(path):
            raise MediaError(f"{path}: {LFS_REMEDY}")
    except OSError as error:
        raise MediaError(f"{path}: {error.strerror}; check the path and its permissions") from error


def choose_streams(
    container: av.container.InputContainer, path: Path
) -> tuple[av.VideoStream | None, av.AudioStream | None]:
    """The default, else the first, of each kind. Cover art is no video."""
    cover = av.stream.Disposition.attached_pic
    videos = [s for s in container.streams.video if s.codec_context and not s.disposition & cover]
    audios = [s for s in container.streams.audio if s.codec_context]
    if container.format.name == "tty" or not (videos or audios):
        raise MediaError(f"{path}: has neither sound nor pictures; give a video or sound file")
    default = av.stream.Disposition.default
    videos.sort(key=lambda s: not s.disposition & default)
    audios.sort(key=lambda s: not s.disposition & default)
    if videos:
        _check_size(videos[0].codec_context, path)
        videos[0].thread_type = "AUTO"
    return (videos[0] if videos else None), (audios[0] if audios else None)


@dataclass
class Damage:
    """What of a file could not be used, counted while it is read, by `video` and `audio`."""

    packets: Counter[str] = field(default_factory=Counter)  # that there were
    lost: Counter[str] = field(default_factory=Counter)  # of these, not decoded
    damaged: Counter[str] = field(default_factory=Counter)  # frames decoded with errors in them
    breaks: int = 0  # places where the container itself could not be read

    def notes(self, duration: float, promised: float | None) -> list[str]:
        """A line for each kind of damage.

        Args:
            duration: of the recording, in seconds.
            promised: what the file's header says it is.
        """
        found = [
            f"{self.lost[kind]} of {self.packets[kind]} packets of {kind} cannot be decoded"
            for kind in sorted(self.lost)
        ]
        found += [
            f"{count} frames of {kind} are damaged" for kind, count in sorted(self.damaged.items())
        ]
        if self.breaks:
            found.append(f"the file cannot be read at {self.breaks} places")
        if promised is not None and duration < promised - MISSING_SECONDS:
            found.append(f"the file ends at {duration:.2f} s of {promised:.2f} s that it promises")
        return found


def _check_size(codec: av.VideoCodecContext, path: Path) -> None:
    """Refuse pictures that would take gigabytes of memory, as damaged headers may ask for."""
    if codec.width * codec.height > MOST_PIXELS:
        raise MediaError(
            f"{path}: has pictures of {codec.width} x {codec.height} pixels, more than "
            f"{MOST_PIXELS / 1e6:.0f} million; scale it down"
        )


def read_packets(
    container: av.container.InputContainer,
    streams: Sequence[av.stream.Stream],
    damage: Damage | None = None,
) -> Iterator[av.Packet]:
    """Packets of the streams and at last an empty one of each; reads on behind damaged places."""
    damage = damage or Damage()
    joints = _Joints(container)
    failures = 0
    while True:
        try:
            for packet in container.demux(list(streams)):
                failures = 0
                joints.smooth(packet)
                yield packet
            return
        except av.FFmpegError:
            failures += 1
            damage.breaks += failures == 1
            if failures >= READ_ATTEMPTS:
                return


def decode_packet(packet: av.Packet, damage: Damage | None = None) -> list[av.frame.Frame]:
    """Frames of a packet; none where it is damaged. Their times tell what is missing."""
    damage = damage or Damage()
    kind = packet.stream.type
    damage.packets[kind] += packet.size > 0
    try:
        frames: list[av.frame.Frame] = [*packet.decode()]
    except av.FFmpegError:
        damage.lost[kind] += 1
        return []
    for frame in frames:
        if getattr(frame, "is_corrupt", False):
            damage.damaged[kind] += 1
    return frames


def read_origin(streams: list[av.stream.Stream]) -> float:
    """Presentation time at which the earliest stream starts, in the file's seconds."""
    starts = [
        float(stream.start_time * stream.time_base)
        for stream in streams
        if stream.start_time is not None and stream.time_base is not None
    ]
    return min(starts, default=0.0)


def declared_duration(container: av.container.InputContainer) -> float | None:
    return None if container.duration is None else container.duration / av.time_base


def promised_duration(
    container: av.container.InputContainer, streams: Sequence[av.stream.Stream]
) -> float | None:
    """Seconds that the header says the streams last; None where it says nothing."""
    name, total = container.format.name, declared_duration(container)
    if name in _RIFF and total:
        return total * _riff_excess(Path(container.name.removeprefix("file:")))
    if name not in _STATING:
        return None
    ends = [
        float((stream.start_time or 0) + stream.duration) * float(stream.time_base)
        for stream in streams
        if stream.duration is not None and stream.time_base is not None
    ]
    return max(ends) - read_origin(list(streams)) if len(ends) == len(streams) else total


def _riff_excess(path: Path) -> float:
    """Size of a RIFF file by its header over what there is of it; 1 where it was not closed."""
    with path.open("rb") as file:
        head = file.read(8)
    stated = int.from_bytes(head[4:8], "little") + 8
    actual = path.stat().st_size
    return stated / actual if head[:4] == b"RIFF" and actual < stated < 2**32 - 2**16 else 1.0


def is_still(container: av.container.InputContainer) -> bool:
    name = container.format.name
    return name == "image2" or name.endswith("_pipe")


class _Joints:
    """Keeps time going where recordings were joined and their clock starts anew.

    Only formats that may do so are touched (MPEG transport and program streams).
    """

    def __init__(self, container: av.container.InputContainer) -> None:
        self._may_jump = bool(container.format.flags & TS_DISCONT)
        self._offset = 0.0  # seconds, the same for all streams
        self._last: dict[int, float] = {}  # by stream: when its last packet is decoded

    def smooth(self, packet: av.Packet) -> None:
        """Set the packet's times on."""
        if not self._may_jump or packet.dts is None:
            return
        unit = float(packet.time_base)
        time = packet.dts * unit + self._offset
        last = self._last.get(packet.stream_index, time)
        if not -JUMP_BACK <= time - last <= JUMP_AHEAD:
            follows = last + (packet.duration or 0) * unit
            self._offset += follows - time
            time = follows
        self._last[packet.stream_index] = time
        packet.dts += round(self._offset / unit)
        if packet.pts is not None:
            packet.pts += round(self._offset / unit)
