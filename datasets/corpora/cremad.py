"""CREMA-D: 91 actors, twelve sentences, six emotions, judged by 2,443 raters.

Source: Cao et al., CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset, IEEE Transactions
on Affective Computing 2014 (ODbL 1.0). A file name is actor, sentence, intended emotion, intensity:
`1001_DFA_ANG_XX` (intensity LO, MD, HI or XX; one published name ends in a single X). Pictures are
`VideoFlash/*.flv` or recoded mp4, sound is `AudioWAV/*.wav` or `AudioMP3/*.mp3`; Kaggle's copy is
one flat folder of wavs. Files are found by name, in any folders.

`summaryTable.csv` names the emotion most raters chose from the sound alone, from the face alone
and from both; a tie is written `A:N`. `tabulatedVotes.csv` counts the votes: the first digit of a
row's number says what was shown (1 sound, 2 face, 3 both). `VideoDemographics.csv` is about actors.

A few published clips do not decode or hold no sound (`1076_MTI_SAD_XX` among them). No list of them
is kept here: preparing a corpus finds and reports what cannot be used.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from datasets.annotations import Record
from datasets.corpora.corpus import Corpus, register_corpus
from labels.emotions import SIX
from media.suffixes import SOUND, VIDEO, find_media

Scored = Literal["intended", "perceived"]
_NAME = re.compile(r"^(1\d{3})_([A-Z]{3})_(ANG|DIS|FEA|HAP|NEU|SAD)_(LO|MD|HI|XX|X)$")
_INTENDED = {"ANG": "angry", "DIS": "disgust", "FEA": "fearful"}
_INTENDED |= {"HAP": "happy", "NEU": "neutral", "SAD": "sad"}
_VOTED = {name[0]: emotion for name, emotion in _INTENDED.items()}
_INTENSITY = {"LO": "low", "MD": "medium", "HI": "high"}
# Of several files of a clip the earlier is preferred, as published before what was recoded.
_VIDEO = (".flv", ".mp4", *sorted(VIDEO - {".flv", ".mp4"}))
_AUDIO = (".wav", ".flac", ".mp3", *sorted(SOUND - {".wav", ".flac", ".mp3"}))
_SHOWN = {"audio": "VoiceVote", "video": "FaceVote", "both": "MultiModalVote"}
_SHOWN_BY_DIGIT = {"1": "audio", "2": "video", "3": "both"}
_DEMOGRAPHICS = ("Age", "Race", "Ethnicity")

Shares = dict[str, dict[str, dict[str, float]]]  # clip -> what was shown -> emotion -> share


def read_records(root: Path, label: Scored = "intended") -> list[Record]:
    """One record a clip, with pictures, sound, or both, as the files are there.

    Columns `perceived_audio`, `perceived_video`, `perceived_both` hold the raters' choices (tied
    ones joined by `:`) where the tables are there, `perceived` the one from what the record holds,
    `perceived_share_<class>` its shares of votes, and `scored` which label is the record's.

    Args:
        root: folder that holds media and tables, in any folders below.
        label: `intended`, the emotion in the file name, or `perceived`, the raters' choice from
            what the record holds (sound, pictures or both). With `perceived`, `soft` holds the vote
            shares (equal ones of a tie where only the summary is there), a tie is read as the
            intended emotion if that is among the tied, and other ties are left out.

    Raises:
        ValueError: no CREMA-D clip under the folder; or `perceived` without a table of votes.
    """
    clips: dict[str, list[Path]] = defaultdict(list)
    tables: dict[str, Path] = {}
    for path in find_media(root, {*_VIDEO, *_AUDIO, ".csv"}).files:
        if path.suffix.lower() == ".csv":
            tables.setdefault(path.name.lower(), path)
        elif _NAME.match(path.stem.upper()):
            clips[path.stem.upper()].append(path)
    if not clips:
        raise ValueError(f"no CREMA-D files such as 1001_DFA_ANG_XX.wav under {root}")
    shares = _read_votes(tables)
    if label == "perceived" and not shares:
        raise ValueError(f"no summaryTable.csv or tabulatedVotes.csv of raters' votes under {root}")
    actors = _read_actors(tables.get("videodemographics.csv"))
    records = [_intended(name, files, shares, actors) for name, files in sorted(clips.items())]
    if label == "intended":
        return records
    judged = [_perceived(record, shares) for record in records]
    return [record for record in judged if record is not None]


def _intended(
    name: str, files: list[Path], shares: Shares, actors: dict[str, dict[str, str]]
) -> Record:
    match = _NAME.match(name)
    assert match
    actor, sentence, emotion, intensity = match.groups()
    votes = shares.get(name, {})
    video = _preferred(files, _VIDEO)
    return Record(
        video=video,
        audio=_preferred(files, _AUDIO),
        label=_INTENDED[emotion],
        speaker=f"cremad-{actor}",
        dataset="cremad",
        extra={
            "performance": name,
            "statement": sentence,
            "intensity": _INTENSITY.get(intensity, "unspecified"),
            "scored": "intended",
            **{f"perceived_{shown}": ":".join(_winners(votes.get(shown, {}))) for shown in _SHOWN},
            **_tell_perceived(votes.get(_shown(video), {})),
            **actors.get(actor, {}),
        },
    )


def _shown(video: str) -> str:
    """What a record shows its raters: a clip's video file has sound of its own."""
    return "both" if video else "audio"


def _tell_perceived(votes: dict[str, float]) -> dict[str, str]:
    """Columns of what raters saw and heard in a record; none where they were not asked."""
    shares = {f"perceived_share_{name}": f"{votes.get(name, 0):.4f}" for name in _VOTED.values()}
    return {"perceived": ":".join(_winners(votes)), **shares} if votes else {}


def _preferred(files: list[Path], suffixes: tuple[str, ...]) -> str:
    known = [path for path in files if path.suffix.lower() in suffixes]
    return str(min(known, key=lambda path: suffixes.index(path.suffix.lower()))) if known else ""


def _perceived(record: Record, shares: Shares) -> Record | None:
    """The record as raters judged what it holds; None where they did not agree on one emotion."""
    shown = _shown(record.video)
    votes = shares.get(record.extra["performance"], {}).get(shown, {})
    winners = _winners(votes)
    if len(winners) != 1 and record.label not in winners:
        return None
    return replace(
        record,
        label=winners[0] if len(winners) == 1 else record.label,
        soft=votes,
        extra={**record.extra, "intended": record.label, "scored": f"perceived_{shown}"},
    )


def _winners(shares: dict[str, float]) -> list[str]:
    return [name for name, share in shares.items() if share == max(shares.values())]


def _read_votes(tables: dict[str, Path]) -> Shares:
    """Vote shares; of the summary where votes are not counted: 1, or equal ones of a tie."""
    shares: Shares = defaultdict(dict)
    if "summarytable.csv" in tables:
        for row in _read_table(tables["summarytable.csv"], {"FileName", *_SHOWN.values()}):
            for shown, column in _SHOWN.items():
                letters = [letter for letter in row[column].split(":") if letter in _VOTED]
                votes = {_VOTED[letter]: 1 / len(letters) for letter in letters}
                shares[row["FileName"].upper()][shown] = votes
    if "tabulatedvotes.csv" in tables:
        for row in _read_table(tables["tabulatedvotes.csv"], {"", "fileName", *_VOTED}):
            given = {emotion: float(row[letter]) for letter, emotion in _VOTED.items()}
            total = sum(given.values())
            if total and row[""][:1] in _SHOWN_BY_DIGIT:
                votes = {emotion: n / total for emotion, n in given.items() if n}
                shares[row["fileName"].upper()][_SHOWN_BY_DIGIT[row[""][0]]] = votes
    return shares


def _read_actors(path: Path | None) -> dict[str, dict[str, str]]:
    """Columns age, race, ethnicity and gender by actor; nothing where there is no table."""
    if path is None:
        return {}
    rows = _read_table(path, {"ActorID", "Sex", *_DEMOGRAPHICS})
    return {
        row["ActorID"]: {"gender": row["Sex"].lower()}
        | {name.lower(): row[name] for name in _DEMOGRAPHICS}
        for row in rows
    }


def _read_table(path: Path, columns: set[str]) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = columns - set(reader.fieldnames or ())
        if missing:
            raise ValueError(f"{path} has no column {', '.join(sorted(missing))}")
        return list(reader)


CORPUS = register_corpus(
    Corpus(
        name="cremad",
        read=read_records,
        layout="`VideoFlash/*.flv` (or mp4), `AudioWAV/*.wav` (or mp3), or a flat folder of wavs; "
        "joins `VideoDemographics.csv` and `processedResults/summaryTable.csv`",
        labels="6, as **intended**; what the crowd perceived stands beside it",
        licence="ODbL 1.0",
        classes=SIX,
        source="Cao et al., IEEE Transactions on Affective Computing 2014",
        links=("https://github.com/CheyneyComputerScience/CREMA-D",),
    )
)
CORPUS_PERCEIVED = register_corpus(
    replace(
        CORPUS,
        name="cremad_perceived",
        read=partial(read_records, label="perceived"),
        layout="the same",
        labels="6, as the **crowd** perceived; fractions of votes as soft labels",
    )
)
