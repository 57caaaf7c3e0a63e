"""Packets of a media file: opening, the choice of streams, and reading past what is broken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import av

from media.errors import MediaError

DAMAGED = "it is damaged, or no media file: convert or copy it again"
TS_DISCONT = 0x0200  # AVFMT_TS_DISCONT
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
        if path.stat().st_size == 0:
            raise MediaError(f"{path}: is empty (0 bytes); copy or record it again")
        path.open("rb").close()
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
        videos[0].thread_type = "AUTO"
    return (videos[0] if videos else None), (audios[0] if audios else None)


def read_packets(
    container: av.container.InputContainer, streams: Sequence[av.stream.Stream]
) -> Iterator[av.Packet]:
    """Packets of the streams and at last an empty one of each; reads on behind damaged places."""
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
            if failures >= READ_ATTEMPTS:
                return


def decode_packet(packet: av.Packet) -> list[av.frame.Frame]:
    """Frames of a packet; none where it is damaged. Their times tell what is missing."""
    try:
        return list(packet.decode())
    except av.FFmpegError:
        return []


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
