"""Voice along the road of a sample: recordings, clips, inputs, stores and timelines."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import media.decoding
import media.reading
import media.voice
from checkpoints.checkpoint import save_checkpoint
from checkpoints.combine import merge_clip_configs
from datasets import prepare
from datasets.annotations import Record, read_annotations, write_annotations
from datasets.samples import ClipDataset, SampleOptions
from datasets.store import ClipStore, StoreWriter, lacks_voice
from experiments.initialisation import _clip_config
from inference import TrainingAlignedInference
from media.clip import Window, tile_windows
from media.configuration import LEGACY, ClipConfig
from media.preprocess import preprocess
from media.reading import read_recording, stream_clips
from media.recording import Recording
from media.voice import find_voice
from media.voice_track import VoiceTrack
from models import build_model
from opts import parse_options
from tests.builders import (
    LABELS,
    SMALL,
    make_checkpoint,
    make_corpus,
    open_stores,
    without_face,
    without_sound,
)
from tests.builders import make_recording as make_faces
from tests.conftest import RATE, REAL_DATA, WriteMedia
from tests.sounds import hiss, play, talk, to_samples
from timeline.csv_format import write_csv
from timeline.formats import read_timeline
from timeline.json_format import write_json

CONFIG = ClipConfig(face_size=32, detector="whole", voice_activity=0.3)
OFF = replace(CONFIG, voice_activity=0.0)


def make_recording(sound: np.ndarray, config: ClipConfig = CONFIG) -> Recording:
    recording = media.reading._empty_recording(Path("a.wav"), config, None)
    waveform = to_samples(sound)
    voice = find_voice(waveform, config.sample_rate) if config.voice_activity else None
    duration = len(sound) / config.sample_rate
    return replace(recording, waveform=waveform, duration=duration, voice=voice)


@pytest.fixture(scope="module")
def talk_and_music() -> np.ndarray:
    """2 s of talk, 3 s of music, 1.3 s of talk."""
    return np.concatenate([talk(2.0), play(3.0), talk(1.3)])


@pytest.fixture(scope="module")
def path(
    tmp_path_factory: pytest.TempPathFactory, write_media: WriteMedia, talk_and_music: np.ndarray
) -> Path:
    path = tmp_path_factory.mktemp("media") / "a.mka"
    return write_media(path, sound=talk_and_music, audio_codec="flac")


def test_a_window_of_music_has_no_speech_and_one_of_talk_has(talk_and_music: np.ndarray) -> None:
    recording = make_recording(talk_and_music)
    clips = [recording.cut(Window(s, s + 1.0), CONFIG) for s in (0.0, 1.0, 4.0, 5.3)]
    assert [clip.has_speech for clip in clips] == [True, True, False, True]
    fractions = [clip.speech_fraction for clip in clips]
    assert fractions[2] == 0.0
    assert min(fractions[:2]) > 0.8
    assert not preprocess(clips[2], CONFIG)["speech_mask"].any()
    assert recording.cut(Window(4.0, 5.0), OFF).has_speech, "off: all sound counts"


def test_without_voice_activity_the_detector_does_not_run(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise AssertionError("the detector runs")

    monkeypatch.setattr(media.voice, "load_network", refuse)
    assert read_recording(path, OFF, None).voice is None
    assert all(clip.voice is None for clip in stream_clips(path, OFF, None, 1.0))
    with pytest.raises(AssertionError, match="the detector runs"):
        read_recording(path, CONFIG, None)


@pytest.mark.parametrize("config", [OFF, replace(LEGACY, face_size=32)])
def test_inputs_of_earlier_checkpoints_do_not_depend_on_what_is_known_of_voice(
    config: ClipConfig, talk_and_music: np.ndarray
) -> None:
    known = make_recording(talk_and_music, replace(config, voice_activity=0.3))
    for window in tile_windows(known.duration, config.window_seconds, 1.0):
        first, second = known.cut(window, config), replace(known, voice=None).cut(window, config)
        assert first.speech_fraction is None
        assert first.has_speech == second.has_speech
        before, after = preprocess(first, config), preprocess(second, config)
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_recording_of_which_voice_is_not_known_counts_as_before(
    talk_and_music: np.ndarray,
) -> None:
    recording = replace(make_recording(talk_and_music), voice=None)
    for window in tile_windows(recording.duration, 1.0, 0.5):
        clip, before = recording.cut(window, CONFIG), recording.cut(window, OFF)
        assert clip.has_speech
        assert clip.speech_fraction is None
        inputs, wanted = preprocess(clip, CONFIG), preprocess(before, OFF)
        assert torch.equal(inputs["speech_mask"], wanted["speech_mask"])
        assert torch.equal(inputs["speech"], wanted["speech"])


@pytest.mark.parametrize("rate", [16000, 22050])
@pytest.mark.parametrize(("hop", "block_seconds"), [(1.0, 0.01), (0.3, 1.0), (0.5, 100.0)])
def test_streamed_voice_equals_that_of_the_whole(
    path: Path, monkeypatch: pytest.MonkeyPatch, rate: int, hop: float, block_seconds: float
) -> None:
    config = replace(CONFIG, sample_rate=rate)
    recording = read_recording(path, config, None)
    assert recording.voice is not None
    monkeypatch.setattr(media.decoding, "BLOCK_SECONDS", block_seconds)
    clips = list(stream_clips(path, config, None, hop))
    assert [clip.window for clip in clips] == tile_windows(recording.duration, 1.0, hop)
    assert {clip.has_speech for clip in clips} == {True, False}
    for clip in clips:
        again = recording.cut(clip.window, config)
        assert clip.speech_fraction == again.speech_fraction
        assert clip.has_speech == again.has_speech
        assert clip.voice is not None
        assert again.voice is not None
        assert np.array_equal(clip.voice.probabilities, again.voice.probabilities)
        streamed, whole = preprocess(clip, config), preprocess(again, config)
        assert all(torch.equal(streamed[name], whole[name]) for name in whole)


def test_voice_is_that_of_the_waveform(path: Path) -> None:
    for rate in (16000, 22050):
        recording = read_recording(path, replace(CONFIG, sample_rate=rate), None)
        assert recording.voice is not None
        again = find_voice(recording.waveform, rate)
        assert np.array_equal(recording.voice.probabilities, again.probabilities)


def test_memory_for_voice_does_not_grow_with_the_length(
    tmp_path: Path, write_media: WriteMedia, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_media(tmp_path / "a.mka", sound=hiss(30.0), audio_codec="flac")
    held: list[int] = []
    extend = media.reading._extend

    def watched(recording: Recording, blocks: list) -> Recording:
        longer = extend(recording, blocks)
        assert longer.voice is not None
        held.append(len(longer.voice.probabilities))
        return longer

    monkeypatch.setattr(media.reading, "_extend", watched)
    assert len(list(stream_clips(path, CONFIG, None, 1.0))) == 30
    assert 0 < max(held) < 6 * 31.25


def test_frames_without_speech_are_masked_and_frames_close_to_it_are_not() -> None:
    probabilities = np.zeros(94, dtype=np.float16)
    probabilities[40:50] = 0.9  # 1.28 to 1.60 s
    recording = replace(make_recording(hiss(3.0)), voice=VoiceTrack(probabilities))
    clip = recording.cut(Window(1.0, 2.0), CONFIG)
    assert clip.speech_fraction == pytest.approx(0.32)
    inputs = preprocess(clip, CONFIG)
    frames = np.flatnonzero(inputs["speech_mask"])
    assert frames[0] == 18  # 0.1 s before, its middle at 1.185 s
    assert frames[-1] == 69
    assert len(frames) == 52
    assert not inputs["speech"][:, ~inputs["speech_mask"]].any()
    assert inputs["speech"][:, inputs["speech_mask"]].any()


@pytest.mark.parametrize(("frames", "spoken"), [(2, False), (4, True)])
def test_a_window_needs_a_tenth_of_a_second_of_speech(frames: int, spoken: bool) -> None:
    probabilities = np.zeros(94, dtype=np.float16)
    probabilities[40 : 40 + frames] = 0.9
    recording = replace(make_recording(hiss(3.0)), voice=VoiceTrack(probabilities))
    clip = recording.cut(Window(1.0, 2.0), CONFIG)
    assert clip.has_speech == spoken
    assert clip.speech_fraction == pytest.approx(frames * 0.032)
    assert preprocess(clip, CONFIG)["speech_mask"].any() == spoken


def test_speech_just_outside_a_window_is_not_its_own() -> None:
    probabilities = np.zeros(94, dtype=np.float16)
    probabilities[63:] = 0.9  # from 2.016 s on
    recording = replace(make_recording(hiss(3.0)), voice=VoiceTrack(probabilities))
    clip = recording.cut(Window(1.0, 2.0), CONFIG)
    assert clip.speech_fraction == 0.0
    assert not clip.has_speech
    assert clip.voiced_at(np.array([0.95]), 0.3).all(), "but it is known to be near"


@pytest.mark.parametrize("seconds", [0.15, 0.3])
def test_a_short_last_window_is_judged_by_its_own_length(seconds: float) -> None:
    for sound, spoken in ((talk(2.0 + seconds), True), (play(2.0 + seconds), False)):
        recording = make_recording(sound)
        window = tile_windows(recording.duration, 1.0, 1.0)[-1]
        assert window.partial
        clip = recording.cut(window, CONFIG)
        assert clip.speech_fraction == pytest.approx(float(spoken))
        assert clip.has_speech == spoken
        mask = preprocess(clip, CONFIG)["speech_mask"]
        assert mask.sum() == (round(seconds * 100) if spoken else 0)


def test_mfccs_of_frames_without_speech_are_masked_too() -> None:
    config = replace(LEGACY, face_size=32, voice_activity=0.3)
    probabilities = np.zeros(113, dtype=np.float16)
    probabilities[:40] = 0.9  # to 1.28 s
    sound = np.interp(np.arange(0, 3.6, 1 / 22050), np.arange(57600) / RATE, hiss(3.6))
    recording = replace(make_recording(sound, config), voice=VoiceTrack(probabilities))
    inputs = preprocess(recording.cut(Window(0.0, 3.6), config), config)
    assert inputs["speech_mask"].shape == (156,)
    assert inputs["speech_mask"].sum() == pytest.approx(1.38 * 22050 / 512, abs=1)


def test_a_recurrent_speech_model_hears_speech_after_a_gap() -> None:
    model = build_model("speech_crnn", num_classes=2, recurrent_width=8).eval()
    torch.manual_seed(0)
    speech = torch.randn(1, 64, 100)
    mask = torch.zeros(1, 100, dtype=torch.bool)
    mask[:, :20] = mask[:, 60:80] = True
    changed = speech.clone()
    changed[:, :, 64:76] += 1.0  # in the part after the gap
    with torch.inference_mode():
        first, second = (model(s, mask)["logits"] for s in (speech * mask, changed * mask))
    assert not torch.allclose(first, second)


def test_a_store_keeps_voice_and_an_older_one_counts_as_before(
    tmp_path: Path, talk_and_music: np.ndarray
) -> None:
    recording = make_recording(talk_and_music)
    with StoreWriter(tmp_path / "new", OFF) as writer:
        writer.add("a|", recording)
        writer.add("b|", replace(recording, waveform=recording.waveform[:0]))
    kept = ClipStore(tmp_path / "new").recording("a|")
    assert kept.voice is not None
    assert recording.voice is not None
    assert np.array_equal(kept.voice.probabilities, recording.voice.probabilities)
    assert not lacks_voice(tmp_path / "new")
    window = Window(3.5, 4.5)
    assert kept.cut(window, CONFIG).has_speech == recording.cut(window, CONFIG).has_speech

    with StoreWriter(tmp_path / "old", OFF) as writer:
        writer.add("a|", replace(recording, voice=None))
    (tmp_path / "old" / "voice").unlink()  # as a version without voice leaves it
    older = ClipStore(tmp_path / "old").recording("a|")
    assert older.voice is None
    assert older.cut(window, CONFIG).has_speech
    assert lacks_voice(tmp_path / "old")
    with StoreWriter(tmp_path / "old", OFF) as writer:
        writer.add("c|", recording)
    mixed = ClipStore(tmp_path / "old")
    assert mixed.recording("a|").voice is None
    assert mixed.recording("c|").voice is not None


def test_training_and_inference_see_equal_speech(
    tmp_path: Path, write_media: WriteMedia, talk_and_music: np.ndarray
) -> None:
    sound = write_media(tmp_path / "a.flac", sound=talk_and_music, audio_codec="flac")
    table = tmp_path / "list.csv"
    table.write_text(f"video,audio,label,subset\n,{sound},happy,training\n")
    arguments = ["annotation", "--root", str(table), "--out", str(tmp_path / "out")]
    assert prepare.main([*arguments, "--face_size", "32"]) == 0
    store = ClipStore(tmp_path / "out" / "clips")
    recording = store.recording(f"|{sound}")
    clips = list(stream_clips(sound, CONFIG, None, 0.5))
    assert {clip.has_speech for clip in clips} == {True, False}
    for clip in clips:
        trained = preprocess(recording.cut(clip.window, CONFIG), CONFIG)
        inferred = preprocess(clip, CONFIG)
        assert all(torch.equal(trained[name], inferred[name]) for name in inferred)


def _dataset(manifest: Path, config: ClipConfig, *modalities: str, **options: Any) -> ClipDataset:
    records, stores = read_annotations(manifest), open_stores(manifest)
    return ClipDataset(
        records, stores, config, LABELS, modalities or ("speech",), SampleOptions(**options)
    )


def test_training_on_a_store_without_voice_is_refused_by_its_name(tmp_path: Path) -> None:
    manifest = make_corpus(tmp_path)  # its recordings know nothing of voice
    config = replace(SMALL, voice_activity=0.3)
    with pytest.raises(ValueError, match=r"clips was prepared without voice detection"):
        _dataset(manifest, config)
    assert len(_dataset(manifest, config, "face")), "faces need none"
    assert len(_dataset(manifest, SMALL))


def test_who_lends_a_voice_lends_what_is_known_of_it(tmp_path: Path) -> None:
    heard = np.zeros(50, dtype=np.float16)
    heard[20:] = 0.9  # from 0.64 s on
    records = []
    with StoreWriter(tmp_path / "clips", SMALL) as writer:
        for name, recording in (
            ("seen", without_sound(make_faces(0, "happy"))),
            ("heard", replace(without_face(make_faces(1, "happy")), voice=VoiceTrack(heard))),
        ):
            record = Record(f"{tmp_path}/{name}.mp4", "", "happy", subset="training")
            writer.add(record.key, recording)
            records.append(record)
    write_annotations(records, tmp_path / "manifest.csv")
    config = replace(SMALL, window_seconds=1.5, voice_activity=0.3)
    pairing = read_annotations(tmp_path / "manifest.csv")
    dataset = _dataset(
        tmp_path / "manifest.csv", config, "face", "speech", train=True, pairing=pairing
    )
    mask = dataset[0]["inputs"]["speech_mask"]
    assert not mask[:50].any()
    assert mask[60:].all()


def test_the_threshold_of_training_is_in_its_clips() -> None:
    arguments = ["--annotation_path", "a.csv", "--model", "speech_cnn"]
    model = build_model("speech_cnn", num_classes=2)
    for flags, wanted in (([], 0.0), (["--voice_activity", "0.3"], 0.3)):
        options = parse_options([*arguments, *flags])
        assert _clip_config(options, model, SMALL).voice_activity == wanted


def test_a_fused_model_takes_the_threshold_of_its_speech_part() -> None:
    configs = {"face": ClipConfig(), "speech": ClipConfig(voice_activity=0.3)}
    assert merge_clip_configs(configs).voice_activity == 0.3


@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_a_threshold_that_is_no_probability_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="voice_activity"):
        ClipConfig(voice_activity=value)


def test_music_is_seen_but_not_heard_in_the_timeline(
    tmp_path: Path, write_media: WriteMedia, talking_pictures: list[np.ndarray]
) -> None:
    config = ClipConfig(face_size=32, pictures=3, voice_activity=0.3)
    save_checkpoint(make_checkpoint("multimodalcnn", config), tmp_path / "m.safetensors")
    engine = TrainingAlignedInference(tmp_path / "m.safetensors", "cpu")
    heard = {}
    for name, sound in (("music", play(2.4)), ("talk", talk(2.4))):
        media_path = write_media(tmp_path / f"{name}.mp4", talking_pictures, sound=sound)
        timeline = engine.run(media_path)
        heard[name] = [row.modalities for row in timeline.rows]
        assert timeline.measures == ["speech_fraction"]
        write_csv(timeline, tmp_path / f"{name}.csv")
        write_json(timeline, tmp_path / f"{name}.json")
        for suffix in ("csv", "json"):
            again = read_timeline(tmp_path / f"{name}.{suffix}")
            for row, wanted in zip(again.rows, timeline.rows, strict=True):
                fraction = wanted.measures["speech_fraction"]
                assert row.measures["speech_fraction"] == pytest.approx(fraction, abs=1e-4)
    assert heard == {"music": ["video"] * 3, "talk": ["audio+video"] * 3}
    rows = json.loads((tmp_path / "music.json").read_text())["rows"]
    assert [row["speech_fraction"] for row in rows] == [0.0] * 3
    assert (tmp_path / "talk.csv").read_text().splitlines()[0].endswith(",speech_fraction")


def test_music_alone_is_nothing_to_a_model_of_speech(
    tmp_path: Path, write_media: WriteMedia
) -> None:
    save_checkpoint(make_checkpoint("speech_cnn", CONFIG), tmp_path / "m.safetensors")
    engine = TrainingAlignedInference(tmp_path / "m.safetensors", "cpu")
    timeline = engine.run(write_media(tmp_path / "a.mka", sound=play(3.5), audio_codec="flac"))
    assert [row.modalities for row in timeline.rows] == ["none"] * 4
    table = timeline.to_pandas()
    assert table["speech_fraction"].tolist() == [0.0] * 4


def test_a_model_of_faces_does_not_look_for_voice(tmp_path: Path) -> None:
    config = ClipConfig(face_size=32, voice_activity=0.3)
    save_checkpoint(make_checkpoint("face_cnn", config), tmp_path / "m.safetensors")
    assert TrainingAlignedInference(tmp_path / "m.safetensors", "cpu").config.voice_activity == 0


@pytest.mark.data
@pytest.mark.parametrize(("name", "spoken"), [("bbaf2n.mpg", True), ("no_face.mp4", False)])
def test_real_clips_hold_speech_or_do_not(name: str, spoken: bool) -> None:
    clips = list(stream_clips(REAL_DATA / "media" / name, CONFIG, None, 1.0))
    assert any(clip.has_speech for clip in clips) == spoken
