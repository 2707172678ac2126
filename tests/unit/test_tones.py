"""The notes that the package synthesises."""

from pathlib import Path

import librosa
import numpy as np
import pytest

from vae_bss_tf.config import AudioConfig
from vae_bss_tf.datasets import load_bank, tones
from vae_bss_tf.errors import DataError

AUDIO = AudioConfig()


@pytest.fixture(scope="module")
def notes() -> tuple[np.ndarray, np.ndarray]:
    return tones.synthesise(np.random.default_rng(5), 60, AUDIO)


def test_notes_are_normalised_and_reproducible(notes: tuple[np.ndarray, np.ndarray]) -> None:
    waveforms, labels = notes
    assert waveforms.shape == (60, 8_192)
    assert waveforms.dtype == np.float32
    assert np.isfinite(waveforms).all()
    assert np.abs(waveforms).max(axis=1) == pytest.approx(1)
    assert labels.min() >= 0
    assert labels.max() <= 36
    again, _ = tones.synthesise(np.random.default_rng(5), 60, AUDIO)
    assert np.array_equal(again, waveforms)


def test_pitch_is_the_label(notes: tuple[np.ndarray, np.ndarray]) -> None:
    waveforms, labels = notes
    found = [
        librosa.hz_to_midi(np.median(librosa.yin(w[800:2_400], fmin=110, fmax=1_200, sr=5_512.5, frame_length=1_024)))
        for w in waveforms
    ]
    error = np.abs(np.asarray(found) - 48 - labels)
    assert np.mean(error < 0.5) > 0.9


def test_notes_start_at_once_and_end_in_silence(notes: tuple[np.ndarray, np.ndarray]) -> None:
    waveforms, _ = notes
    assert (np.abs(waveforms[:, :100]).max(axis=1) > 1e-3).all()
    assert not waveforms[:, -100:].any()


def test_splits_share_no_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tones, "NUM_NOTES", dict.fromkeys(tones.NUM_NOTES, 250))
    banks = [load_bank("tones", split, audio=AUDIO) for split in ("train", "validation", "test")]
    first = np.concatenate([bank.items[:, 1_000] for bank in banks])
    assert len(set(first)) == 750


def test_a_data_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no --data-dir"):
        load_bank("tones", "train", tmp_path)
