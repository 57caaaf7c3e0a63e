"""Clips to measure on: real recordings looped to a length, and packets looped without decoding."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path

import av
import numpy as np

from benchmarks.reference import read_waveform
from system.files import replacing

WIDTH, HEIGHT = 1280, 720
BIT_RATE = 9_000_000  # bits per second, as the real clips have
SOUND_RATE, AAC_FRAME = 48000, 1024


def make_clip(sources: list[Path], seconds: float, path: Path) -> None:
    """Loop recordings to a clip of at most so long, encoded anew as 1280x720 H.264 and AAC."""
    with av.open(str(sources[0])) as container:
        rate = container.streams.video[0].average_rate or Fraction(25)
    count = max(1, int(seconds * rate))  # not longer, or a sliver of a window would follow
    sound = _loop_sound(sources, count, rate)
    with replacing(path) as temporary, av.open(str(temporary), "w") as container:
        video = _add_video_stream(container, rate)
        audio = container.add_stream("aac", rate=SOUND_RATE, layout="mono")
        for number, frame in enumerate(islice(_loop_pictures(sources), count)):
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(video.encode(frame))
            first, end = (round((number + i) * SOUND_RATE / rate) for i in range(2))
            if first < len(sound):
                container.mux(audio.encode(_sound_frame(sound, first, end)))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def _add_video_stream(container: av.container.OutputContainer, rate: Fraction) -> av.VideoStream:
    if "libx264" in av.codecs_available:
        video = container.add_stream("libx264", rate=rate, options={"preset": "veryfast"})
    else:
        video = container.add_stream("mpeg4", rate=rate)
    video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    video.bit_rate = BIT_RATE
    return video


def _loop_pictures(sources: list[Path]) -> Iterator[av.VideoFrame]:
    for source in cycle(sources):
        with av.open(str(source)) as container:
            for frame in container.decode(video=0):
                # A new frame each time: what is encoded must carry nothing of its source.
                planes = frame.reformat(WIDTH, HEIGHT, "yuv420p").to_ndarray()
                yield av.VideoFrame.from_ndarray(planes, format="yuv420p")


def _loop_sound(sources: list[Path], count: int, rate: Fraction) -> np.ndarray:
    """(N,) float32 that goes with `count` looped pictures, in whole frames of AAC.

    What is left of the last frame is dropped, or its padding would outlast the pictures.
    """
    samples = int(count * SOUND_RATE / rate) // AAC_FRAME * AAC_FRAME
    parts: list[np.ndarray] = []
    for source in cycle(sources):
        if sum(map(len, parts)) >= samples:
            break
        with av.open(str(source)) as container:
            length = round(container.streams.video[0].frames * SOUND_RATE / rate)
        part = read_waveform(source, SOUND_RATE)[:length]
        parts.append(np.pad(part, (0, length - len(part))))
    return np.concatenate(parts)[:samples]


def _sound_frame(sound: np.ndarray, first: int, end: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(sound[None, first:end].copy(), format="fltp", layout="mono")
    frame.sample_rate, frame.pts = SOUND_RATE, first
    frame.time_base = Fraction(1, SOUND_RATE)
    return frame


def loop_packets(source: Path, seconds: float, path: Path) -> None:
    """Repeat a clip's packets, without encoding, as often as comes nearest to so long."""
    with av.open(str(source)) as container:
        length = max(
            float((s.duration or 0) * s.time_base) for s in container.streams if s.time_base
        )
    with replacing(path) as temporary, av.open(str(temporary), "w") as out:
        streams: dict[int, av.stream.Stream] = {}
        for loop in range(max(1, round(seconds / length))):
            with av.open(str(source)) as container:
                for stream in container.streams:
                    if not loop:
                        streams[stream.index] = out.add_stream_from_template(stream)
                for packet in container.demux():
                    if packet.dts is None or packet.pts is None:
                        continue
                    shift = round(loop * length / packet.time_base)
                    packet.dts, packet.pts = packet.dts + shift, packet.pts + shift
                    packet.stream = streams[packet.stream_index]
                    out.mux(packet)
