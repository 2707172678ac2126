"""NSynth as tensorflow-datasets prepares it on disk, with its real features and a few made notes."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from vae_bss_tf.config import AudioConfig
from vae_bss_tf.datasets import decoded, load_bank
from vae_bss_tf.errors import DataError

AUDIO = AudioConfig(sample_rate=4_000, n_fft=64, hop_length=16, num_frames=64, num_bins=32)
# Instrument and pitch of each note; those of the second are in both held-out splits.
NOTES = {"train": [(0, 40), (0, 43), (1, 40)], "valid": [(2, 50), (2, 52)], "test": [(2, 52), (2, 55), (3, 60)]}


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(decoded.CACHE_VARIABLE, str(tmp_path / "cache"))
    builder = tfds.builder("nsynth/full", data_dir=tmp_path)
    features = builder.info.features

    def notes(pairs: list[tuple[int, int]]) -> tf.data.Dataset:
        def generate():
            for instrument, pitch in pairs:
                samples = np.sin(2 * np.pi * 10.0 * pitch * np.arange(64_000) / 16_000).astype(np.float32)
                yield {
                    "id": f"bass_acoustic_{instrument:03d}-{pitch:03d}-100",
                    "audio": 0.3 * samples,
                    "pitch": pitch,
                    "velocity": 100,
                    "instrument": {"label": instrument, "family": 0, "source": 0},
                    "qualities": dict.fromkeys(features["qualities"], False),
                }

        return tf.data.Dataset.from_generator(generate, output_signature=features.get_tensor_spec())

    tfds.dataset_builders.store_as_tfds_dataset(
        name="nsynth",
        version=str(builder.version),
        config="full",
        features=features,
        split_datasets={part: notes(pairs) for part, pairs in NOTES.items()},
        data_dir=tmp_path,
        disable_shuffling=True,
    )
    return tmp_path


def pitches(items: np.ndarray) -> list[int]:
    peaks = np.abs(np.fft.rfft(items, 1 << 16)).argmax(axis=1) * 4_000 / (1 << 16)
    return sorted(round(peak / 10) for peak in peaks)


def test_the_splits_hold_the_notes_and_share_no_instrument_and_pitch(prepared: Path) -> None:
    banks = {split: load_bank("nsynth", split, prepared, audio=AUDIO) for split in ("train", "validation", "test")}
    assert {split: pitches(bank.items) for split, bank in banks.items()} == {
        "train": [40, 40, 43],
        "validation": [50, 52],
        "test": [55, 60],
    }
    assert sorted(banks["train"].labels) == [0, 0, 1]
    assert np.abs(banks["train"].items).max(axis=1) == pytest.approx(1)


def test_an_interrupted_decoding_resumes(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoded, "SAVE_EVERY", 1)
    shifted = AUDIO.replace(pitch_shifts=(0.0, 12.0))
    flush, calls = np.memmap.flush, []

    def interrupted(array):
        flush(array)
        calls.append(array)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(np.memmap, "flush", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load_bank("nsynth", "train", prepared, audio=shifted)
    assert pitches(load_bank("nsynth", "train", prepared, audio=shifted).items) == [40, 40, 43, 80, 80, 86]


def test_an_unprepared_data_set_is_said_with_the_ways_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tfds build.*--data-dir.*--dataset notes"):
        load_bank("nsynth", "train", tmp_path)
