"""The score without a truth: what separates scores high, and what agrees with itself without separating does not."""

from collections.abc import Callable

import numpy as np
import pytest

from vae_bss_tf.baselines.oracle import trivial_estimates
from vae_bss_tf.config import AudioConfig
from vae_bss_tf.domains import Images, Sound
from vae_bss_tf.errors import DataError
from vae_bss_tf.metrics.consistency import LIMIT_DB, remix_consistency

SIZE = 16
AUDIO = AudioConfig(sample_rate=4_000, n_fft=64, hop_length=16, num_frames=32, num_bins=32, frame_pooling=4, power=0.5)
Separate = Callable[[np.ndarray], np.ndarray]


def rows_of_pictures(number: int, of_each: int = 2) -> np.ndarray:
    """Mixtures of sources of which each is one row of the picture: `[number, SIZE, SIZE]`."""
    rng = np.random.default_rng(0)
    mixtures = np.zeros((number, SIZE, SIZE), np.float32)
    pairs = rng.permuted(np.tile(np.arange(SIZE), (number // 2, 1)), axis=1).reshape(number, -1)[:, :of_each]
    for mixture, rows in zip(mixtures, pairs, strict=True):  # neighbours have no row in common
        mixture[rows] = rng.uniform(0.2, 0.5, (of_each, SIZE))
    return mixtures


def by_rows(mixtures: np.ndarray, leak: float = 0.0, outputs: int = 2) -> np.ndarray:
    """Separates rows, the strongest first, but for the share `leak` of each that goes to the other outputs."""
    order = np.argsort(-np.square(mixtures).sum(axis=2), axis=1)
    masks = np.stack([np.arange(SIZE) == order[:, k, None] for k in range(outputs)], axis=1)[..., None]
    mixed = (1 - leak) * masks + leak / (outputs - 1) * (1 - masks)
    return (mixed * mixtures[:, None] * masks.any(axis=1, keepdims=True)).astype(np.float32)


def fixed_mask(mixtures: np.ndarray) -> np.ndarray:
    left = np.arange(mixtures.shape[2]) < mixtures.shape[2] // 2
    return np.stack([mixtures * left, mixtures * ~left], axis=1)


def all_but(share: float) -> Separate:
    return lambda mixtures: np.stack([(1 - share) * mixtures, share * mixtures], axis=1)


def score(separate: Separate, mixtures: np.ndarray, num_mixed: int = 2) -> float:
    return float(remix_consistency(separate, mixtures, Images(), num_mixed).scores.mean())


def test_the_true_separation_has_the_highest_score_and_a_worse_one_a_lower_one() -> None:
    mixtures = rows_of_pictures(40)
    scores = [score(lambda m, leak=leak: by_rows(m, leak), mixtures) for leak in (0.0, 0.05, 0.2, 0.5)]
    assert scores[0] > 25
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < 3


@pytest.mark.parametrize(
    ("name", "separate", "most"),
    [
        ("half each", lambda m: trivial_estimates(m, 2)["mixture/k"], 1e-6),
        ("the mixture in each", lambda m: trivial_estimates(m, 2)["mixture"], 1e-6),
        ("nothing", lambda m: trivial_estimates(m, 2)["zeros"], -LIMIT_DB),
        ("all in one", all_but(0.0), 0),
        ("nearly all in one", all_but(0.005), 0),
        ("most in one", all_but(0.2), 1e-6),
        ("one output", lambda m: m[:, None], -LIMIT_DB),
        ("the left and the right half", fixed_mask, -10),
    ],
)
def test_what_does_not_separate_scores_low(name: str, separate: Separate, most: float) -> None:
    assert score(separate, rows_of_pictures(40)) <= most, name


def test_pictures_that_resemble_each_other_score_no_higher() -> None:
    mixtures = rows_of_pictures(40) + 0.2
    assert abs(score(lambda m: trivial_estimates(m, 2)["mixture/k"], mixtures)) < 1e-6


def test_an_output_without_its_share_is_told() -> None:
    mixtures = rows_of_pictures(10)
    assert not remix_consistency(all_but(0.001), mixtures, Images(), 2).shared_out.any()
    assert remix_consistency(by_rows, mixtures[:9], Images(), 2).shared_out.tolist() == [True] * 8


def test_a_spare_output_does_not_count_and_three_sources_are_three() -> None:
    pairs, triples = rows_of_pictures(20), rows_of_pictures(20, of_each=3)

    def with_a_spare(mixtures: np.ndarray) -> np.ndarray:
        return np.concatenate([by_rows(mixtures), 0.05 * mixtures[:, None]], axis=1)

    def of_three(mixtures: np.ndarray) -> np.ndarray:
        return by_rows(mixtures, outputs=3)

    assert score(with_a_spare, pairs) == score(by_rows, pairs)
    assert score(of_three, triples, num_mixed=3) > 25
    assert score(lambda m: trivial_estimates(m, 3)["mixture/k"], triples, num_mixed=3) < 1e-6


def test_sound_is_remixed_with_beating_partials() -> None:
    rng = np.random.default_rng(0)
    frames, bins = AUDIO.feature_shape
    notes = np.zeros((60, frames, bins), np.float32)
    for note, pair in zip(notes, rng.permuted(np.tile(np.arange(0, bins, 4), (60, 1)), axis=1)[:, :2], strict=True):
        note[:, pair] = rng.uniform(0.5, 1, 2)
    notes[1::2] = np.roll(notes[1::2], 2, axis=2)  # neighbours share no bin

    def by_bins(mixtures: np.ndarray) -> np.ndarray:
        order = np.argsort(-mixtures.sum(axis=1), axis=1)
        return np.stack([mixtures * (np.arange(bins) == order[:, k, None])[:, None] for k in range(2)], axis=1)

    def found(separate: Separate) -> float:
        return float(remix_consistency(separate, notes, Sound(AUDIO), 2).scores.mean())

    assert found(by_bins) > 20
    assert found(lambda m: trivial_estimates(m, 2)["mixture/k"]) < 1e-3
    assert found(all_but(0.0)) <= 0
    low = np.arange(bins) < bins // 2
    assert found(lambda m: np.stack([m * low, m * ~low], axis=1)) < 5
    assert found(by_bins) == found(by_bins)


def test_a_single_mixture_cannot_be_remixed() -> None:
    with pytest.raises(DataError, match="two or more"):
        remix_consistency(by_rows, rows_of_pictures(2)[:1], Images(), 2)
