"""Recordings recognised one after the other, with what is learned of people on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from media.adaptation import REFERRED, KnownFaces, Reference, relative_to
from media.blendshapes import describe_windows
from media.clip import Clip
from media.preprocess import preprocess
from recognition.contributions import Inputs, leave_one_out
from recognition.encoded_blocks import EncodedBlocks
from recognition.probabilities import probabilities_of, read_task
from recognition.recogniser import Recogniser
from recognition.thumbnails import Thumbnails
from recognition.voices import KnownVoice
from system.files import printable
from timeline.analysis import FOLLOWED, Analysis
from timeline.row import Modalities, TimelineRow
from timeline.table import ADAPTED, CONTRIBUTION_PREFIX, GATE_PREFIX, SPEECH_FRACTION, Timeline

_MODALITY_NAMES: dict[tuple[bool, bool], Modalities] = {
    (True, True): "audio+video",
    (True, False): "video",
    (False, True): "audio",
    (False, False): "none",
}


class Session:
    """A recogniser at work, and what it has learned of the speakers who were named.

    What is learned of a recording ends with it; what is learned of a speaker is known in that
    speaker's later recordings of the same session. Recordings that are read at once take a session
    each, and may share the recogniser.

    Args:
        recogniser: what recognises.
    """

    def __init__(self, recogniser: Recogniser) -> None:
        self.recogniser = recogniser
        self._speakers: dict[tuple[str, str], Reference] = {}

    def analyse(
        self,
        media_path: str | Path,
        progress: Callable[[float], None] | None = None,
        speaker: str | None = None,
    ) -> Analysis:
        """What is recognised in one file. Memory does not grow with its length but for the rows.

        Args:
            media_path: anything FFmpeg's libraries read.
            progress: called with the fraction done, 0 to 1.
            speaker: whose the first face of the recording is, for `adapt`: what earlier recordings
                of the session taught of that speaker's face is known from the start.

        Raises:
            MediaError: the file cannot be used.
        """
        path, recogniser = Path(media_path), self.recogniser
        notes: list[str] = []
        rows: list[TimelineRow] = []
        thumbnails = Thumbnails(recogniser.options.thumbnails)
        clips = recogniser.read_clips(path, progress, notes.append)
        for clip, row in self.recognise(clips, speaker):
            rows.append(row)
            thumbnails.add(clip)
        timeline = Timeline(
            rows=tuple(rows),
            class_names=recogniser.checkpoint.class_names,
            media=printable(path.name),
            duration=rows[-1].end,
            window_seconds=recogniser.config.window_seconds,
            hop_seconds=recogniser.hop_seconds,
            checkpoint=recogniser.identity(),
            thumbnails=tuple(thumbnails.kept),
            task=read_task(recogniser.checkpoint),
            warnings=tuple(notes),
        )
        analysis = Analysis(
            path=path,
            duration=timeline.duration,
            checkpoint=timeline.checkpoint,
            notes=tuple(notes),
            timelines={FOLLOWED: timeline},
        )
        analysis.check()
        return analysis

    def recognise(
        self, clips: Iterable[Clip], speaker: str | None = None
    ) -> Iterator[tuple[Clip, TimelineRow]]:
        """Each clip of one recording with its row, as the clips come.

        Args:
            clips: in order of time, as `Recogniser.read_clips` gives them.
            speaker: as in `analyse`.
        """
        recording = _RecordingState(self.recogniser, self._speakers, speaker)
        remaining = iter(clips)
        while batch := list(islice(remaining, self.recogniser.options.batch_size)):
            yield from zip(batch, recording.rows(batch), strict=True)


class _RecordingState:
    """What is learned in one recording: its faces, and its speech that is encoded already."""

    def __init__(
        self,
        recogniser: Recogniser,
        speakers: dict[tuple[str, str], Reference],
        speaker: str | None,
    ) -> None:
        self._recogniser = recogniser
        self._known = KnownFaces(recogniser.checkpoint.priors, speakers, speaker)
        encoder, config = recogniser.model.block_encoder(), recogniser.config
        self._blocks: EncodedBlocks | None = None
        if encoder is not None and config.speech_context_seconds:
            self._blocks = EncodedBlocks(encoder, config, recogniser.device)
        self._voice: KnownVoice | None = None
        if recogniser.options.adapt and recogniser.model.voice_part is not None:
            self._voice = KnownVoice(recogniser.model.voice_part, speakers, speaker)

    @torch.inference_mode()
    def rows(self, clips: list[Clip]) -> list[TimelineRow]:
        """The rows of the clips that follow."""
        recogniser = self._recogniser
        inputs, adapted = self._inputs(clips)
        output = recogniser.predict(inputs)
        probabilities = probabilities_of(recogniser.checkpoint, output["logits"])
        rule = recogniser.rule
        uncertain = None if rule is None else rule.uncertain(probabilities)
        measures = {
            **_compare_modalities(recogniser, inputs, output),
            **_measure_clips(recogniser, clips, adapted),
        }
        rows = []
        for index, clip in enumerate(clips):
            modalities = _modalities(clip, inputs)
            nothing = modalities == "none"  # then every class remains possible
            row = TimelineRow(
                start=clip.window.start,
                end=clip.window.end,
                partial=clip.window.partial,
                face_id=clip.face_id,
                face_share=clip.face_share,
                modalities=modalities,
                probabilities=None if nothing else probabilities[index],
                uncertain=None if uncertain is None else nothing or bool(uncertain[index]),
                measures={name: _number(values[index]) for name, values in measures.items()},
            )
            rows.append(row)
        return rows

    def _inputs(self, clips: list[Clip]) -> tuple[dict[str, Tensor], list[bool]]:
        """What the model takes, and of each clip whether all of it is against its person's mean."""
        recogniser = self._recogniser
        wanted = set(recogniser.model.inputs) - ({"speech"} if self._blocks else set())
        samples = [preprocess(clip, recogniser.config, wanted) for clip in clips]
        faces = [self._refer(c, sample) for c, sample in zip(clips, samples, strict=True)]
        inputs: dict[str, Tensor] = {
            name: torch.stack([sample[name] for sample in samples]).to(recogniser.device)
            for name in samples[0]
        }
        if self._blocks is not None:
            inputs |= self._blocks.inputs(clips)
        voices: list[bool | None] = [None] * len(clips)
        if self._voice is not None:
            speech, mask = inputs["speech"], inputs["speech_mask"]
            hop = recogniser.hop_seconds
            inputs["voice_offset"], known = self._voice.offsets(clips, speech, mask, hop)
            voices = [k if c.has_speech else None for k, c in zip(known, clips, strict=True)]
        pairs = zip(faces, voices, strict=True)
        return inputs, [_all_known(face, voice) for face, voice in pairs]

    def _refer(self, clip: Clip, sample: dict[str, Tensor]) -> bool | None:
        """Landmarks and blendshapes less the means that they are seen against.

        Returns:
            Whether those are all the person's own; None where the model has none of them.
        """
        recogniser, adapted = self._recogniser, []
        for name in REFERRED:
            if name not in recogniser.checkpoint.priors or name not in sample:
                continue
            values, mask = sample[name].numpy(), sample[f"{name}_mask"].numpy()
            seen = bool(mask.any())
            reference = self._known.reference(name, clip.face_id, seen)
            if recogniser.options.adapt and seen:
                new = mask.mean() * recogniser.hop_seconds  # windows that overlap share seconds
                size = len(reference.prior.face)
                reference.add(values[mask, :size].mean(axis=0), float(new))
            sample[name] = torch.from_numpy(relative_to(values, mask, reference.face))
            adapted.append(reference.is_adapted)
        return all(adapted) if adapted else None


def _all_known(*known: bool | None) -> bool:
    """Whether something is against a person's own mean, and all that could be is."""
    told = [each for each in known if each is not None]
    return bool(told) and all(told)


def _compare_modalities(
    recogniser: Recogniser, inputs: dict[str, Tensor], output: dict[str, Tensor]
) -> dict[str, np.ndarray]:
    """(B,) of each column of contributions and gates."""
    if not recogniser.fused:
        return {}

    def predict(inputs: Inputs) -> np.ndarray:
        return probabilities_of(recogniser.checkpoint, recogniser.predict(inputs)["logits"])

    changes = leave_one_out(predict, inputs, recogniser.fused)
    gates = {n: v.double().cpu().numpy() for n, v in output.items() if n.startswith(GATE_PREFIX)}
    return {CONTRIBUTION_PREFIX + name: change for name, change in changes.items()} | gates


def _measure_clips(
    recogniser: Recogniser, clips: list[Clip], adapted: list[bool]
) -> dict[str, np.ndarray]:
    """(B,) of each column that tells of the clips themselves."""
    measures: dict[str, np.ndarray] = {}
    if recogniser.options.face_measures:
        steps = [(clip.blendshapes, clip.blendshapes_mask) for clip in clips]
        measures |= describe_windows(steps)
    if recogniser.options.adapt:
        measures[ADAPTED] = np.array(adapted, dtype=float)
    if recogniser.config.voice_activity:
        measures[SPEECH_FRACTION] = np.array([clip.speech_fraction for clip in clips], float)
    return measures


def _modalities(clip: Clip, inputs: Inputs) -> Modalities:
    """What a clip has of what a model takes."""
    seen = ("face" in inputs and clip.face_mask.any()) or (
        "landmarks" in inputs and clip.points_mask.any()
    )
    seen = seen or ("blendshapes" in inputs and clip.blendshapes_mask.any())
    return _MODALITY_NAMES[bool(seen), bool("speech" in inputs and clip.has_speech)]


def _number(value: float) -> float | None:
    """None for NaN."""
    return None if np.isnan(value) else float(value)
