"""A demonstration clip made by code: a portrait that talks, smiles, frowns and leaves the picture.

The portrait is NASA's of Eileen Collins, in the public domain (`demo/SOURCE.txt`). Its face
is warped from picture to picture, and the sound is a source-filter synthesis of syllables: nobody
was recorded, and the picture itself says so. It shows the program at work; it measures nothing.
"""

from __future__ import annotations

import math
import sys
from dataclasses import astuple, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path

import av
import cv2
import numpy as np
from scipy import signal

from datasets.mouth_opening import smoothstep
from system.files import replacing

PORTRAIT = Path(__file__).parent / "demo" / "portrait.jpg"
CAPTION = "synthetic demo: public-domain NASA portrait, generated sound"
WIDTH, HEIGHT, PICTURES_PER_SECOND = 640, 480, 25
SAMPLE_RATE = 24000
SAMPLES_PER_PICTURE = SAMPLE_RATE // PICTURES_PER_SECOND
AAC_FRAME = 1024  # samples
SYLLABLES_PER_SECOND = 4.0
TRANSITION = 0.45  # seconds from one phase to the next
SCALE = 2.5  # of the portrait on the canvas
FACE_CENTRE = (222.0, 116.0)  # of the camera, in pixels of the portrait, as all below
SUIT_CENTRE = (170.0, 360.0)
MOUTH_BOX = (170, 112, 278, 206)
EYES_BOX = (180, 72, 272, 114)
MOUTH_X, MOUTH_Y, MOUTH_HALF = 223.8, 141.2, 19.6
UPPER_LIP, LOWER_LIP = 1.6, 8.0  # how far below the corners the lips' inner edges lie in the middle
TEETH = LOWER_LIP - UPPER_LIP
# Of each eye: middle x, skin under the brow, edges of the lids in the middle, half its width.
EYES = ((203.0, 91.0, 97.4, 104.4, 10.5), (247.5, 94.3, 99.6, 106.8, 11.5))
LASHES = 1.5  # height of the dark edge of the upper lid
BROWS = ((201.5, 89.5), (251.0, 92.8))
MOUTH_DARK = np.array([58.0, 22.0, 24.0], dtype=np.float32)
TONGUE = np.array([128.0, 62.0, 62.0], dtype=np.float32)
# Formants of five vowels, in Hz, and their bandwidths.
VOWELS = (
    (850, 1610, 2850),
    (610, 2330, 2990),
    (310, 2790, 3310),
    (590, 920, 2710),
    (370, 950, 2670),
)
BANDWIDTHS = (90, 110, 170)


@dataclass(frozen=True)
class Expression:
    """How the portrait is changed. Lengths are in its pixels; all zero is the portrait as it is.

    Args:
        corners: how far the corners of the mouth go down.
        narrow: how far each goes towards the middle.
        opening: what the gap between the lips gains; -TEETH closes the mouth.
        upper: how far the upper lip goes down.
        brows: how far the brows go up.
        knit: how far their inner ends go down and together.
        lids: how far the upper lids go up (wide eyes), as a share of the eye; -1 closes them.
        away: 1 when the camera looks at the suit instead of the face.
        voice: loudness of the voice, 0 for silence.
        arousal: 0 calm to 1: pitch, and stress of the syllables.
    """

    corners: float = 0.0
    narrow: float = 0.0
    opening: float = 0.0
    upper: float = 0.0
    brows: float = 0.0
    knit: float = 0.0
    lids: float = 0.0
    away: float = 0.0
    voice: float = 0.7
    arousal: float = 0.3


SMILE = Expression()
NEUTRAL = Expression(3.0, 3.5, -TEETH, 1.2, voice=0.55, arousal=0.0)
SURPRISED = Expression(5.0, 8.0, 5.0, 0.0, 3.4, 0.0, 0.12, voice=1.0, arousal=1.0)
AWAY = Expression(3.0, 3.5, -TEETH, 1.2, away=1.0, voice=0.6, arousal=0.2)
FROWN = Expression(6.0, 3.5, -TEETH, 1.4, -3.2, 3.5, -0.1, voice=1.0, arousal=0.8)
SILENT_FROWN = Expression(7.0, 3.5, -TEETH, 1.4, -1.0, 1.0, -0.2, voice=0.0, arousal=0.0)
# Start of each phase in a clip of 24 s; other lengths are stretched.
PHASES = (
    (0.0, SMILE),
    (5.0, NEUTRAL),
    (8.5, SURPRISED),
    (11.75, AWAY),
    (15.2, FROWN),
    (18.7, SILENT_FROWN),
    (22.3, SMILE),
)
PHASES_SECONDS = 24.0


def make_demo_clip(path: Path, seconds: float = 24.0) -> Path:
    """Write the clip as MP4: 640x480 at 25 pictures a second, H.264 where there is an encoder, AAC.

    In 24 s: a smile, a neutral face, surprise, the suit without a face, a frown, a silent frown and
    the smile again. Another length stretches these phases.

    Returns:
        `path`.

    Raises:
        ValueError: not between 2 and 600 seconds.
    """
    if not 2 <= seconds <= 600:
        raise ValueError(f"a demo clip of {seconds:g} s: must be between 2 and 600 s")
    times = np.arange(int(seconds * PICTURES_PER_SECOND)) / PICTURES_PER_SECOND
    track = expression_track(times, seconds)
    samples = (
        len(times) * SAMPLES_PER_PICTURE // AAC_FRAME * AAC_FRAME
    )  # or padding would outlast it
    speech = synthesise_speech(seconds)[:samples]
    options = {"fflags": "+bitexact"}  # no date and no version: the same clip every time
    with replacing(path) as temporary, av.open(str(temporary), "w", options=options) as container:
        container.metadata.update(title="EmoFuse demo clip", comment=CAPTION)
        video = _add_video_stream(container)
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        audio.bit_rate = 48000
        for number, (time, expression) in enumerate(zip(times, track, strict=True)):
            picture = draw_portrait(expression, float(time))
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            start = number * SAMPLES_PER_PICTURE
            if start < samples:
                container.mux(audio.encode(_audio_frame(speech, start)))
        container.mux(video.encode())
        container.mux(audio.encode())
    return path


def expression_track(times: np.ndarray, seconds: float) -> list[Expression]:
    """The expression at each time: phases joined smoothly, with speech on the lips, and blinks."""
    values = _phase_values(times, seconds)  # (P, fields)
    syllables, _ = _syllables(times, seconds)
    track = []
    for time, row, syllable in zip(times, values, syllables, strict=True):
        pose = Expression(*(float(value) for value in row))
        spoken = pose.voice * (3.5 + 2.5 * pose.arousal) * float(syllable)
        blink = max(0.0, 1.0 - abs((time + 1.4) % 3.1 - 1.5) / 0.12)
        track.append(
            replace(
                pose,
                opening=pose.opening + spoken,
                narrow=pose.narrow + 0.2 * spoken,
                lids=float(pose.lids - blink * (1.0 + pose.lids)),
            )
        )
    return track


def draw_portrait(expression: Expression, time: float) -> np.ndarray:
    """(480, 640, 3) uint8 RGB: the portrait with that expression, moved a little, and captioned."""
    canvas = _portrait().copy()
    for box, warp in ((MOUTH_BOX, _warp_mouth), (EYES_BOX, _warp_eyes)):
        left, top, right, bottom = (round(edge * SCALE) for edge in box)
        canvas[top:bottom, left:right] = warp(canvas, expression)
    picture = cv2.warpAffine(
        canvas,
        _camera(expression.away, time),
        (WIDTH, HEIGHT),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )
    cv2.rectangle(picture, (0, HEIGHT - 26), (WIDTH, HEIGHT), (24, 24, 24), cv2.FILLED)
    origin, font = (50, HEIGHT - 9), cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(picture, CAPTION, origin, font, 0.48, (235, 235, 235), 1, cv2.LINE_AA)
    return picture


def synthesise_speech(seconds: float) -> np.ndarray:
    """(N,) float32 in [-1, 1] at SAMPLE_RATE: syllables without words, silent where the voice is 0.

    A train of glottal pulses with a pitch contour and some breath goes through the formants of each
    vowel (the source-filter model of Fant, 1960); each syllable takes one of the five results.
    """
    times = np.arange(math.ceil(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    values = dict(zip(_FIELDS, _phase_values(times, seconds).T, strict=True))
    loudness, vowels = _syllables(times, seconds)
    source = _glottal_source(times, values["arousal"])
    voice = np.zeros(len(times))
    for index, formants in enumerate(VOWELS):
        chosen = (vowels == index).astype(float)
        fade = signal.windows.hann(SAMPLE_RATE // 25)
        voice += signal.fftconvolve(chosen, fade / fade.sum(), "same") * _resonate(source, formants)
    voice *= loudness * values["voice"] * (0.5 + 0.5 * values["arousal"])
    voice[values["voice"] < 0.02] = 0.0
    return (0.7 * voice / np.abs(voice).max()).astype(np.float32)


_FIELDS = tuple(field.name for field in fields(Expression))


def _phase_values(times: np.ndarray, seconds: float) -> np.ndarray:
    """(P, fields) of Expression at each time, eased from phase to phase."""
    values = np.tile(np.array(astuple(PHASES[0][1])), (len(times), 1))
    for (start, pose), (_, before) in zip(PHASES[1:], PHASES, strict=False):
        share = (times - start * seconds / PHASES_SECONDS) / TRANSITION + 0.5
        step = np.array(astuple(pose)) - np.array(astuple(before))
        values += smoothstep(share)[:, None] * step
    return values


def _syllables(times: np.ndarray, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """(P,) loudness 0 to 1 and (P,) vowel index at each time; every eighth syllable is a pause."""
    random = np.random.default_rng(7)
    count = math.ceil(seconds * SYLLABLES_PER_SECOND) + 1
    vowels, stress = random.integers(0, len(VOWELS), count), random.uniform(0.6, 1.0, count)
    stress[7::8] = 0.0
    position = times * SYLLABLES_PER_SECOND
    index = position.astype(int)
    swell = np.sin(np.pi * (position - index)) ** 0.8
    return swell * stress[index], vowels[index]


def _glottal_source(times: np.ndarray, arousal: np.ndarray) -> np.ndarray:
    """(N,) pulses at 170 to 300 Hz, falling over each phrase of two seconds, and breath noise."""
    random = np.random.default_rng(11)
    phrase = 1.12 - 0.22 * ((times * SYLLABLES_PER_SECOND / 8) % 1.0)
    flutter = 1 + 0.012 * np.sin(2 * np.pi * 5.1 * times) + 0.006 * np.sin(2 * np.pi * 11.3 * times)
    pitch = 175.0 * (1 + 0.6 * arousal) * phrase * flutter
    phase = np.cumsum(pitch) / SAMPLE_RATE % 1.0
    pulses = np.where(phase < 0.6, np.sin(np.pi * phase / 0.6) ** 2 * (phase / 0.6), 0.0)
    breath = random.normal(0.0, 0.02, len(times))
    return np.diff(pulses + breath, prepend=0.0)


def _resonate(source: np.ndarray, formants: tuple[int, ...]) -> np.ndarray:
    """The source through resonators in series, at the level of one."""
    voice = source
    for frequency, bandwidth in zip(formants, BANDWIDTHS, strict=True):
        radius = math.exp(-math.pi * bandwidth / SAMPLE_RATE)
        turn = 2 * math.pi * frequency / SAMPLE_RATE
        poles = [1.0, -2 * radius * math.cos(turn), radius**2]
        voice = signal.lfilter([sum(poles)], poles, voice)
    return np.asarray(voice / np.sqrt(np.mean(voice**2)))


def read_portrait() -> np.ndarray:
    """(512, 512, 3) uint8 RGB: the portrait as it is stored."""
    stored = cv2.imread(str(PORTRAIT))
    assert stored is not None, f"{PORTRAIT} is part of the repository"
    return cv2.cvtColor(stored, cv2.COLOR_BGR2RGB)


@lru_cache(maxsize=1)
def _portrait() -> np.ndarray:
    """The portrait enlarged SCALE times; callers copy it before they change it."""
    size = round(512 * SCALE)
    return cv2.resize(read_portrait(), (size, size), interpolation=cv2.INTER_LANCZOS4)


def _camera(away: float, time: float) -> np.ndarray:
    """(2, 3) from a pixel of the picture to one of the canvas: a slow sway, and the tilt down."""
    turn = math.radians(1.8 * math.sin(1.3 * time) + 0.8 * math.sin(2.9 * time))
    zoom = 1 + 0.03 * math.sin(0.7 * time)
    cosine, sine = zoom * math.cos(turn), zoom * math.sin(turn)
    x, y = (
        face + away * (suit - face) for face, suit in zip(FACE_CENTRE, SUIT_CENTRE, strict=True)
    )
    x = SCALE * (x + 3.0 * math.sin(0.9 * time))
    y = SCALE * (y + 1.5 * math.sin(1.7 * time))
    middle_x, middle_y = WIDTH / 2, HEIGHT / 2
    return np.array(
        [
            [cosine, -sine, x - cosine * middle_x + sine * middle_y],
            [sine, cosine, y - sine * middle_x - cosine * middle_y],
        ]
    )


@lru_cache(maxsize=2)
def _grid(box: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """x and y in the portrait of each canvas pixel in a box."""
    left, top, right, bottom = (round(edge * SCALE) for edge in box)
    y, x = np.mgrid[top:bottom, left:right].astype(np.float32) / np.float32(SCALE)
    return x, y


def _warp_mouth(canvas: np.ndarray, pose: Expression) -> np.ndarray:
    """The box around the mouth with its corners moved and its lips opened or closed.

    Below the lower lip the skin follows it, ever wider and less, down to the neck. Between the lips
    the teeth keep their place under the upper lip; what opens below them is dark.
    """
    x, y = _grid(MOUTH_BOX)
    for corner, side in ((MOUTH_X - MOUTH_HALF, 1.0), (MOUTH_X + MOUTH_HALF, -1.0)):
        near = _bump(x - corner, y - MOUTH_Y, 10.0, 8.0)
        x, y = x - side * pose.narrow * near, y - pose.corners * near
    inside = np.maximum(0, 1 - ((x - MOUTH_X) / MOUTH_HALF) ** 2)
    upper = MOUTH_Y + (UPPER_LIP + pose.upper) * inside
    gap = max(0.0, TEETH + pose.opening)
    lower = upper + gap * inside
    teeth_end = MOUTH_Y + LOWER_LIP * inside
    lift = smoothstep(1 - (upper - y) / 11) * pose.upper * inside
    reach = 24.0 + 2.0 * max(0.0, gap - TEETH)
    jaw = np.maximum(0, 1 - ((x - MOUTH_X) / (MOUTH_HALF + 16 * smoothstep((y - lower) / 20))) ** 2)
    drop = (gap + pose.upper - TEETH) * jaw * smoothstep(1 - (y - lower) / reach)
    between = (y >= upper) & (y < lower)
    source_y = np.where(y < upper, y - lift, np.where(between, y - pose.upper * inside, y - drop))
    skin = _sample(canvas, x, source_y)
    dark = between * np.clip((source_y - teeth_end) / 0.8, 0, 1)
    line = np.exp(-(((y - upper) / 0.8) ** 2)) * np.sqrt(inside) * max(0.0, 0.75 - gap / 4)
    tongue = smoothstep((y - upper) / max(1.0, gap) * 1.6 - 0.6)[..., None]
    colour = MOUTH_DARK + tongue * (TONGUE - MOUTH_DARK)
    return _blend(skin, colour, np.maximum(dark, 0.7 * line))


def _warp_eyes(canvas: np.ndarray, pose: Expression) -> np.ndarray:
    """The box around the eyes with the brows moved and the upper lids raised or closed."""
    x, y = _grid(EYES_BOX)
    middle = (BROWS[0][0] + BROWS[1][0]) / 2
    for brow_x, brow_y in BROWS:
        inner = brow_x + np.sign(middle - brow_x) * 12
        y = y + pose.brows * _bump(x - brow_x, y - brow_y, 14.0, 5.5)
        knit = pose.knit * _bump(x - inner, y - brow_y, 8.0, 6.0)
        x, y = x - 0.6 * np.sign(middle - brow_x) * knit, y - knit
    for eye_x, top, upper, lower, half in EYES:
        inside = np.maximum(0, 1 - ((x - eye_x) / half) ** 2)
        edge = lower - (lower - upper) * inside
        moved = edge - pose.lids * (lower - upper) * 0.95 * inside
        stretch = (edge - LASHES - top) / np.maximum(0.5, moved - LASHES - top)
        lid = np.where(y > moved - LASHES, y - moved + edge, top + (y - top) * stretch)
        y = np.where((y > top) & (y < moved) & (inside > 0), lid, y)
    return _sample(canvas, x, y)


def _bump(x: np.ndarray, y: np.ndarray, width: float, height: float) -> np.ndarray:
    return np.exp(-((x / width) ** 2) - (y / height) ** 2)


def _sample(canvas: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    columns, rows = (np.asarray(axis * SCALE, dtype=np.float32) for axis in (x, y))
    return cv2.remap(canvas, columns, rows, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def _blend(picture: np.ndarray, colour: np.ndarray, share: np.ndarray) -> np.ndarray:
    mixed = picture + (colour - picture) * share[..., None]
    return np.clip(mixed + 0.5, 0, 255).astype(np.uint8)


def _add_video_stream(container: av.container.OutputContainer) -> av.VideoStream:
    options = {"crf": "24", "preset": "veryfast", "threads": "2"}
    if "libx264" in av.codecs_available:
        video = container.add_stream("libx264", rate=PICTURES_PER_SECOND, options=options)
    else:
        video = container.add_stream("mpeg4", rate=PICTURES_PER_SECOND)
        video.bit_rate = 400_000
    video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    return video


def _audio_frame(waveform: np.ndarray, start: int) -> av.AudioFrame:
    """The mono sound that goes with the picture that starts at that sample."""
    part = np.ascontiguousarray(waveform[None, start : start + SAMPLES_PER_PICTURE])
    frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
    frame.sample_rate, frame.pts = SAMPLE_RATE, start
    return frame


if __name__ == "__main__":
    make_demo_clip(Path(sys.argv[1]))
