"""What mutations start from: small media of many codecs, tables, checkpoints and recipes."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image

from checkpoints.checkpoint import Checkpoint, combine_checkpoints, save_checkpoint
from datasets.demo_clip import read_portrait
from media.clip import ClipConfig
from models import build_model
from opts import RECIPES

SECONDS, FPS, RATE = 1.2, 10, 16000
SMALL = ClipConfig(face_size=32, pictures=3)
LABELS = ("happy", "sad")
# File, codec of the pictures (empty for none), codec of the sound, channels, options of the muxer.
_MEDIA: tuple[tuple[str, str, str, int, dict[str, str]], ...] = (
    ("h264.mp4", "libx264", "aac", 1, {}),
    ("faststart.mp4", "libx264", "aac", 2, {"movflags": "+faststart"}),
    ("fragmented.mp4", "libx264", "aac", 1, {"movflags": "frag_keyframe+empty_moov"}),
    ("hevc.mp4", "libx265", "aac", 1, {}),
    ("h264.mov", "libx264", "pcm_s16le", 2, {}),
    ("h264.mkv", "libx264", "flac", 2, {}),
    ("vp9.webm", "libvpx-vp9", "libopus", 1, {}),
    ("vp8.webm", "libvpx", "libopus", 1, {}),
    ("mpeg4.avi", "mpeg4", "libmp3lame", 1, {}),
    ("mjpeg.avi", "mjpeg", "pcm_s16le", 1, {}),
    ("h264.ts", "libx264", "aac", 1, {}),
    ("mpeg2.mpg", "mpeg2video", "mp2", 1, {}),
    ("flv1.flv", "flv", "aac", 1, {}),
    ("h264.flv", "libx264", "aac", 1, {}),
    ("wmv2.wmv", "wmv2", "", 1, {}),
    ("s16.wav", "", "pcm_s16le", 1, {}),
    ("f32.wav", "", "pcm_f32le", 2, {}),
    ("tone.flac", "", "flac", 1, {}),
    ("tone.mp3", "", "libmp3lame", 1, {}),
    ("tone.ogg", "", "libopus", 2, {}),
    ("tone.m4a", "", "aac", 1, {}),
    ("tone.aiff", "", "pcm_s16be", 1, {}),
    ("tone.caf", "", "alac", 2, {}),
)


def make_seeds(kind: str, folder: Path) -> list[Path]:
    """Files of a kind in a folder, made where they are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "media": _make_media,
        "annotations": _make_annotations,
        "checkpoints": _make_checkpoints,
        "recipes": _make_recipes,
    }[kind](folder)


def make_model(path: Path) -> Path:
    """A small late fusion with random weights, which sees and hears."""
    if not path.exists():
        torch.manual_seed(0)
        parts = {
            name: Checkpoint(build_model(model, num_classes=2).eval(), LABELS, SMALL)
            for name, model in (("face", "face_cnn"), ("speech", "speech_cnn"))
        }
        save_checkpoint(combine_checkpoints(parts, "product"), path)
    return path


def _make_media(folder: Path) -> list[Path]:
    paths = []
    for name, video, audio, channels, options in _MEDIA:
        if any(codec and codec not in av.codecs_available for codec in (video, audio)):
            continue
        paths.append(folder / name)
        if not paths[-1].exists():
            _encode(paths[-1], video, audio, channels, options)
    for name in ("face.png", "face.jpg", "face.bmp", "face.webp", "face.tif", "face.gif"):
        paths.append(folder / name)
        Image.fromarray(_picture(0)).save(paths[-1])
    return paths


def _picture(number: int) -> np.ndarray:
    """(144, 192, 3) uint8: a portrait, a little further to the side from one to the next."""
    face = np.full((144, 192, 3), 90, dtype=np.uint8)
    face[:, 24:168] = read_portrait()[0:240:1, 100:340][:: 240 // 144][:144, :144]
    return np.roll(face, number, axis=1)


def _encode(path: Path, video: str, audio: str, channels: int, options: dict[str, str]) -> None:
    with av.open(str(path), "w", options=options) as container:
        layout, rate = "mono" if channels == 1 else "stereo", _rate_of(audio)
        sound = container.add_stream(audio, rate=rate, layout=layout) if audio else None
        pictures = container.add_stream(video, rate=FPS) if video else None
        if isinstance(pictures, av.VideoStream):
            _encode_pictures(container, pictures, video)
        if isinstance(sound, av.AudioStream):
            for frame in (*_sound_frames(sound, channels), None):
                container.mux(sound.encode(frame))


def _encode_pictures(
    container: av.container.OutputContainer, stream: av.VideoStream, codec: str
) -> None:
    stream.width, stream.height = 192, 144
    stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    if codec == "libx265":  # its threads wait for each other on a busy machine
        stream.options = {"x265-params": "log-level=none:pools=none:frame-threads=1"}
    for number in range(round(SECONDS * FPS)):
        frame = av.VideoFrame.from_ndarray(_picture(number), format="rgb24")
        frame.pts, frame.time_base = number, Fraction(1, FPS)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _rate_of(codec: str) -> int:
    return 48000 if codec == "libopus" else RATE


def _sound_frames(stream: av.AudioStream, channels: int) -> list[av.AudioFrame]:
    rate = stream.rate
    times = np.arange(round(SECONDS * rate)) / rate
    tone = 0.4 * np.sin(2 * np.pi * 440 * times) * (1 + np.sin(20 * times)) / 2
    samples = np.tile(tone.astype(np.float32), (channels, 1))
    layout = stream.layout.name
    resampler = av.AudioResampler(
        format=stream.format, layout=layout, rate=rate, frame_size=stream.codec_context.frame_size
    )
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    return [found for part in (frame, None) for found in resampler.resample(part) if found]


_ROWS = [
    ["a.mp4", "", "happy", "0.5", "1.2", "anna", "training", "0.8", "0.2"],
    ["b.mp4", "b.wav", "sad", "", "", "ben", "validation", "0.1", "0.9"],
    ["c, d.mp4", "", "anger", "0", "2.25", "carla", "testing", "", ""],
    ["é.mp4", "", "neutral", "", "3", "dörte", "", "0.5", "0.5"],
]
_HEADER = ["video", "audio", "label", "start", "end", "speaker", "subset", "p_happy", "p_sad"]


def _make_annotations(folder: Path) -> list[Path]:
    def table(separator: str, quote: str = "") -> str:
        cells = [_HEADER, *(_ROWS if quote or separator != "," else [_ROWS[i] for i in (0, 1, 3)])]
        return "".join(
            separator.join(f"{quote}{cell}{quote}" for cell in row) + "\n" for row in cells
        )

    texts = {
        "commas.csv": table(","),
        "quotes.csv": table(",", '"'),
        "semicolons.csv": table(";"),
        "tabs.csv": table("\t"),
        "marked.csv": "\ufeff" + table(",", '"'),
        "lines.csv": "a.npy;a.wav;3;training\nb.npy;b.wav;5;testing\n",
        "targets.csv": "audio,label,subset,target_joy\na.wav,happy,training,1\nb.wav,sad,,0\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "utf16.csv").write_bytes(table("\t").encode("utf-16"))
    return [folder / name for name in (*texts, "utf16.csv")]


def _make_checkpoints(folder: Path) -> list[Path]:
    paths = [make_model(folder / "late.safetensors")]
    for name in ("speech_cnn", "face_cnn", "landmark_tcn"):
        paths.append(folder / f"{name}.safetensors")
        model = build_model(name, num_classes=2).eval()
        save_checkpoint(Checkpoint(model, LABELS, SMALL), paths[-1])
    for name in ("speech_cnn", "efficientface"):
        weights = build_model(name, num_classes=7).state_dict()
        paths += [folder / f"{name}.pth", folder / f"{name}.pth.tar"]
        torch.save({"state_dict": weights, "epoch": 3}, paths[-2])
        torch.save(weights, paths[-1], _use_new_zipfile_serialization=False)
    return paths


def _make_recipes(folder: Path) -> list[Path]:
    paths = []
    for path in sorted(RECIPES.glob("*.toml")):
        paths.append(folder / path.name)
        paths[-1].write_bytes(path.read_bytes())
    return paths
