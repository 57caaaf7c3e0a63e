"""An indexed store of prepared recordings: a few large memory-mapped files, not many small ones.

A store is a folder: `store.json` (version and ClipConfig), `index.jsonl` (one line a recording),
and the data files named in `_FILES`, to which recordings are appended. An index line is written
only after its data, so a killed run leaves at most data without an index line, which the next
writer cuts off.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from media.blendshapes import BLENDSHAPES, POSE, MeshTrack
from media.configuration import STORED, ClipConfig
from media.landmarks import MAX_GAP, POINTS, LandmarkTrack
from media.recording import Recording
from media.voice_track import VoiceTrack
from system.files import naming, write_json

VERSION = 1
_FILES = {"faces": np.uint8, "face_times": np.float64, "face_ids": np.int32}
_FILES |= {"picture_times": np.float64, "waveform": np.int16}
_FILES |= {"landmarks": np.float32, "landmark_times": np.float64, "landmark_ids": np.int32}
_FILES |= {"voice": np.float16}
_FILES |= {"blendshapes": np.float32, "head_poses": np.float32, "mesh_presence": np.float32}
_FILES |= {"mesh_times": np.float64, "mesh_ids": np.int32}
# A recording's attributes and theirs that the files of a track hold, where the names differ.
_POINTS = {"landmarks": "points", "landmark_times": "times", "landmark_ids": "ids"}
_MESHES = {"blendshapes": "blendshapes", "head_poses": "head_poses"}
_MESHES |= {"mesh_presence": "presence", "mesh_times": "times", "mesh_ids": "ids"}


@dataclass(frozen=True)
class _Entry:
    """An index line: where in each data file, counted in its items, a recording lies.

    `gaps` are the `max_gap` of its tracks.
    """

    key: str
    duration: float
    spans: dict[str, tuple[int, int]]  # name -> offset, count
    gaps: dict[str, float]


class StoreWriter:
    """Append recordings to a store; what an earlier, perhaps killed, writer finished is kept.

    Raises:
        ValueError: the folder holds a store that was prepared with other constants.
    """

    def __init__(self, folder: Path, config: ClipConfig) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        header = folder / "store.json"
        if header.exists():
            check_config(folder, config)
        else:
            write_json({"version": VERSION, "clip_config": config.to_dict()}, header)
        entries, length = _read_index(folder)
        self.keys = {entry.key for entry in entries}
        self._ends = _ends(entries)
        self._index = _open_cut(folder / "index.jsonl", length)
        self._data = {
            name: _open_cut(folder / name, self._ends[name] * _item_size(name, config))
            for name in _FILES
        }

    def add(self, key: str, recording: Recording) -> None:
        """Append one recording. It is there whole, or not at all."""
        spans = {}
        for name, array in _arrays_of(recording).items():
            values = np.ascontiguousarray(array, dtype=_FILES[name])
            with naming(self._folder / name):
                self._data[name].write(values.tobytes())
                self._data[name].flush()
            spans[name] = (self._ends[name], len(values))
            self._ends[name] += len(values)
        gaps = {"landmarks": recording.landmarks.max_gap, "meshes": recording.meshes.max_gap}
        entry = {"key": key, "duration": recording.duration, "spans": spans, "gaps": gaps}
        line = json.dumps(entry)
        with naming(self._folder / "index.jsonl"):
            self._index.write(line.encode() + b"\n")
            self._index.flush()
        self.keys.add(key)

    def close(self) -> None:
        for file in (self._index, *self._data.values()):
            with naming(self._folder):
                file.close()

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ClipStore:
    """Read a store. Recordings share its memory maps: nothing is read before it is used.

    Raises:
        ValueError: the folder holds no store, or one of another version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = read_config(folder)
        entries, _ = _read_index(folder)
        self._entries = {entry.key: entry for entry in entries}
        ends = _ends(entries)
        self._arrays = {name: self._map(name, ends[name]) for name in _FILES}

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def recording(self, key: str) -> Recording:
        """The prepared recording. Raises KeyError where it is not in the store."""
        entry = self._entries[key]
        parts: dict[str, Any] = {}
        for name in _FILES:
            offset, count = entry.spans.get(name, (0, 0))
            parts[name] = self._arrays[name][offset : offset + count]
        points = {part: parts.pop(name) for name, part in _POINTS.items()}
        meshes = {part: parts.pop(name) for name, part in _MESHES.items()}
        voice = VoiceTrack(parts.pop("voice"))
        return Recording(
            path=Path(key.strip("|")),
            duration=entry.duration,
            landmarks=LandmarkTrack(**points, max_gap=entry.gaps.get("landmarks", MAX_GAP)),
            meshes=MeshTrack(**meshes, max_gap=entry.gaps.get("meshes", 0.0)),
            voice=voice if "voice" in entry.spans else None,  # older stores do not know
            **parts,
        )

    def duration(self, key: str) -> float:
        """Seconds that a recording lasts."""
        return self._entries[key].duration

    def count(self, key: str, name: str) -> int:
        """How many `faces`, `landmarks`, `blendshapes` or samples of `waveform` a recording has."""
        return self._entries[key].spans.get(name, (0, 0))[1]

    def _map(self, name: str, length: int) -> np.ndarray:
        shape = (length, *_item_shape(name, self.config))
        if not length:
            return np.zeros(shape, dtype=_FILES[name])
        return np.memmap(self.folder / name, dtype=_FILES[name], mode="r", shape=shape)


def _arrays_of(recording: Recording) -> dict[str, np.ndarray]:
    """What a store keeps of a recording, by the name of its data file."""
    tracks = {name: getattr(recording.landmarks, part) for name, part in _POINTS.items()}
    tracks |= {name: getattr(recording.meshes, part) for name, part in _MESHES.items()}
    if recording.voice is not None:
        tracks["voice"] = recording.voice.probabilities
    names = [name for name in _FILES if name in tracks or name != "voice"]
    return {name: tracks[name] if name in tracks else getattr(recording, name) for name in names}


def _item_shape(name: str, config: ClipConfig) -> tuple[int, ...]:
    shapes: dict[str, tuple[int, ...]] = {
        "faces": (config.face_size, config.face_size, 3),
        "landmarks": (POINTS, 2),
        "blendshapes": (len(BLENDSHAPES),),
        "head_poses": (len(POSE),),
    }
    return shapes.get(name, ())


def _item_size(name: str, config: ClipConfig) -> int:
    """Bytes of one item of a data file."""
    return np.dtype(_FILES[name]).itemsize * math.prod(_item_shape(name, config))


def read_config(folder: Path) -> ClipConfig:
    """The ClipConfig that a store was prepared with.

    Raises:
        ValueError: no store there, or one of another version.
    """
    try:
        header = json.loads((folder / "store.json").read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder} holds no store of prepared clips: {error}") from error
    if header.get("version") != VERSION:
        raise ValueError(f"store {folder} has version {header.get('version')}; prepare it anew")
    return ClipConfig.from_dict(header["clip_config"])


def check_config(folder: Path, config: ClipConfig) -> None:
    """Raise ValueError, naming both values, where a store was prepared with other constants."""
    differences = read_config(folder).differences(config, STORED)
    if differences:
        raise ValueError(f"store {folder}: {differences[0]}; prepare into another folder")


def lacks(folder: Path, name: str) -> bool:
    """Whether there is a store of recordings that all lack `landmarks`, say, or `blendshapes`."""
    entries, _ = _read_index(folder)
    return bool(entries) and not _ends(entries)[name]


def lacks_voice(folder: Path) -> bool:
    """Whether there is a store with sound of which it is not known where it holds speech."""
    entries, _ = _read_index(folder)
    return any(entry.spans["waveform"][1] and "voice" not in entry.spans for entry in entries)


def _read_index(folder: Path) -> tuple[list[_Entry], int]:
    """Whole entries, and the length in bytes of the part of the index that they fill."""
    path = folder / "index.jsonl"
    entries, length = [], 0
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
        if not line.endswith(b"\n"):
            break
        values = json.loads(line)
        spans = {name: (span[0], span[1]) for name, span in values["spans"].items()}
        gaps = values.get("gaps", {})
        entries.append(_Entry(values["key"], values["duration"], spans, gaps))
        length += len(line)
    return entries, length


def _ends(entries: list[_Entry]) -> dict[str, int]:
    """Items that whole entries fill in each data file."""
    ends = dict.fromkeys(_FILES, 0)
    for entry in entries:
        for name, (offset, count) in entry.spans.items():
            ends[name] = max(ends[name], offset + count)
    return ends


def _open_cut(path: Path, length: int) -> Any:
    """Open for appending after the first `length` bytes; what lies beyond is cut off."""
    if not path.exists():
        path.touch()
    file = path.open("r+b")
    if path.stat().st_size > length:
        file.truncate(length)
    file.seek(length)
    return file
