"""Whether a recording is one that a model knows: closed forms, and real separators that do not know what they hear."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.unit.test_separator import AUDIO, BandSplit, chord
from vae_bss_tf import metrics
from vae_bss_tf.audio import spectrogram
from vae_bss_tf.audio.familiarity import (
    MOST_WINDOWS,
    UNKNOWN,
    Familiarity,
    WindowSample,
    remix_si_sdri,
    sum_si_sdr,
    usual,
)
from vae_bss_tf.audio.separator import Separator
from vae_bss_tf.audio.spectrogram import compress, expand
from vae_bss_tf.datasets.sound_mixtures import AudioEvaluationSet

SAMPLES = 64


def atoms(count: int) -> np.ndarray:
    """Orthonormal signals, `[count, samples]`."""
    return np.linalg.qr(np.random.default_rng(0).normal(size=(SAMPLES, SAMPLES)))[0][:count].astype(np.float32)


def by_atoms(mixtures: np.ndarray) -> np.ndarray:
    """Separates sums of two atoms without an error: the two that it finds most of."""
    products = mixtures @ atoms(SAMPLES).T
    largest = np.argsort(-np.abs(products), axis=1)[:, :2]
    return np.stack([products[np.arange(len(mixtures)), k, np.newaxis] * atoms(SAMPLES)[k] for k in largest.T], axis=2)


def shared(mixtures: np.ndarray, first: float) -> np.ndarray:
    return np.stack([first * mixtures, (1 - first) * mixtures], axis=2)


def sums_of_atoms(count: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    chosen = np.stack([rng.choice(SAMPLES, 2, replace=False) for _ in range(count)])
    return (rng.uniform(0.5, 1, (count, 2, 1)) * atoms(SAMPLES)[chosen]).sum(axis=1).astype(np.float32)


def test_a_perfect_separation_is_told_by_its_remixes() -> None:
    mixtures = sums_of_atoms(128)
    # Two windows in 64 share an atom, of which a new mixture may then hold nothing else.
    assert remix_si_sdri(by_atoms(mixtures), by_atoms) == pytest.approx(30, abs=3)


@pytest.mark.parametrize("share", [0.5, 0.3])
def test_a_mixture_that_is_only_shared_out_is_not_separated(share: float) -> None:
    mixtures = sums_of_atoms(128)
    found = remix_si_sdri(shared(mixtures, share), lambda mixed: shared(mixed, share))
    assert found == pytest.approx(0, abs=0.2)


def test_a_fixed_division_is_not_taken_for_a_separation() -> None:
    """Low and high frequencies are told apart in a mixture of both, and not in one of two low ones."""
    model = Separator(BandSplit(alternate=False), AUDIO)

    def separate(mixtures: np.ndarray) -> np.ndarray:
        return model.separate_windows(mixtures[:, np.newaxis])[..., 0]

    rng = np.random.default_rng(0)
    found = remix_si_sdri(separate(rng.uniform(-1, 1, (64, AUDIO.num_samples)).astype(np.float32)), separate)
    assert found is not None
    assert found < 1
    assert Familiarity(None, found).doubts(UNKNOWN) == ["the model hardly separates new mixtures of its sources"]


def test_nothing_is_said_of_too_few_sounding_sources() -> None:
    mixtures = sums_of_atoms(128)
    alone = np.stack([mixtures, np.zeros_like(mixtures)], axis=2)
    assert remix_si_sdri(alone, by_atoms) is None
    assert remix_si_sdri(by_atoms(mixtures[:15]), by_atoms) is None
    assert remix_si_sdri(mixtures[..., np.newaxis], by_atoms) is None
    assert UNKNOWN.doubts(Familiarity(5.0, 8.0)) == []


@pytest.mark.parametrize(("factor", "rolled"), [(0.3, 0), (1.0, 5)])
def test_the_sum_of_the_estimates_is_judged_as_the_metric_judges_it(factor: float, rolled: int) -> None:
    """Whatever its scale; of estimates that draw something else the SI-SDR is that of the decoded waveforms."""
    audio = AUDIO.replace(frame_pooling=1, power=0.7)
    low, high = chord(4_000, 4 * audio.num_samples / 4_000)
    mixtures = (low + high).reshape(4, -1)

    def outputs(features: np.ndarray) -> dict[str, np.ndarray]:
        magnitudes = np.roll(expand(features, audio), rolled, axis=-1)
        return {"estimates": compress(factor * np.stack([0.25 * magnitudes, 0.75 * magnitudes], axis=1), audio)}

    found = sum_si_sdr(np.concatenate([mixtures, np.zeros_like(mixtures)]), outputs, audio)
    assert found is not None
    if not rolled:
        assert found > 25  # but for the bin at half the rate
        return
    features = spectrogram.features(*spectrogram.stft(mixtures, audio), audio)
    sources = np.repeat(features[:, np.newaxis], 2, axis=1)
    waveforms = {"waveforms": mixtures, "source_waveforms": np.repeat(mixtures[:, np.newaxis], 2, axis=1)}
    counts, labels = np.full(4, 2), np.zeros((4, 2), np.int64)
    truth = AudioEvaluationSet(features, sources, counts, labels, 1.0, audio=audio, **waveforms)
    decoded = truth.decoded_waveforms(outputs(features)["estimates"]).sum(axis=1, keepdims=True)
    assert found == pytest.approx(metrics.si_bss_eval(decoded, mixtures[:, np.newaxis]).sdr.mean(), abs=1e-3)


def test_silence_is_not_judged() -> None:
    assert sum_si_sdr(np.zeros((3, AUDIO.num_samples), np.float32), lambda _: {}, AUDIO) is None


@pytest.mark.parametrize("count", [1, 100, MOST_WINDOWS, MOST_WINDOWS + 1, 5_000])
def test_a_sample_is_spread_evenly_whatever_the_length(count: int) -> None:
    sample = WindowSample()
    for first in range(0, count, 32):
        sample.add(np.arange(first, min(first + 32, count), dtype=np.float32).reshape(-1, 1, 1))
    kept = sample.windows[:, 0, 0]
    assert min(count, MOST_WINDOWS // 2) <= len(kept) <= MOST_WINDOWS
    steps = np.diff(kept)
    assert np.all(steps == steps[:1])
    assert kept[0] == 0
    assert count - kept[-1] <= max(1, *steps, 1)


def test_the_usual_values_are_those_of_the_training(tmp_path: Path) -> None:
    assert usual(tmp_path) == UNKNOWN
    metrics_file = tmp_path / "metrics.json"
    for damaged in ("", "[]", '{"test": 3}', '{"test": {"without_truth": {"sum_si_sdr": "loud", "remix_si_sdri": 3}}}'):
        metrics_file.write_text(damaged)
        assert usual(tmp_path) == UNKNOWN
    values = {"sum_si_sdr": 5.5, "remix_si_sdri": 8}
    metrics_file.write_text(json.dumps({"test": {"without_truth": values}}))
    for model in (tmp_path, tmp_path / "int8.onnx", tmp_path / "saved_model" / "1"):
        assert usual(model) == Familiarity(5.5, 8.0)
    assert usual("http://127.0.0.1:1/v1/models/none") == UNKNOWN


def test_what_is_known_worse_than_in_training_is_told() -> None:
    assert Familiarity(3.0, 8.0).doubts(Familiarity(5.5, 8.0)) == []
    assert Familiarity(2.0, 8.0).doubts(UNKNOWN) == []
    assert Familiarity(2.0, 8.0).doubts(Familiarity(5.5, 8.0)) == ["the model's estimates do not add up to it"]
    assert len(Familiarity(2.0, 1.0).doubts(Familiarity(5.5, 8.0))) == 2
    assert Familiarity(5.0, 1.0).doubts(Familiarity(5.5, 3.5)) == []  # a model that separates little on any mixture
