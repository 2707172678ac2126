"""Separated windows put together: exact where they agree, robust where one strays, of every length."""

from collections.abc import Iterator

import numpy as np
import pytest

from vae_bss_tf.audio.overlap_add import hop_length, overlap_add, windows


def separated(source: np.ndarray, length: int, shares: list[float]) -> tuple[np.ndarray, int]:
    """Windows of a stream `[samples]`, each shared out among sources: `[n, length, num_sources, 1]`."""
    cut = np.concatenate([batch for batch, _ in windows(iter([source[:, np.newaxis]]), length, 1)])
    return np.stack([share * cut[:, 0, :, np.newaxis] for share in shares], axis=2), len(source)


def together(cut: np.ndarray, end: float, orders: list[np.ndarray] | None = None) -> np.ndarray:
    return np.concatenate(list(overlap_add([(cut, end)], orders)))[..., 0]


@pytest.mark.parametrize("length", [64, 66, 67])
@pytest.mark.parametrize("samples", [1, 20, 64, 67, 80, 83, 84, 500])
@pytest.mark.parametrize("shares", [[1.0], [0.25, 0.75], [0.5, 0.3, 0.2]])
def test_windows_that_agree_give_the_stream_back(length: int, samples: int, shares: list[float]) -> None:
    source = np.random.default_rng(0).normal(size=samples).astype(np.float32)
    found = together(*separated(source, length, shares), [np.arange(len(shares))] * 1_000)
    assert found.shape == (samples, len(shares))
    np.testing.assert_allclose(found, source[:, np.newaxis] * shares, atol=1e-6)


def test_batches_of_one_window_give_what_one_batch_gives() -> None:
    source = np.random.default_rng(0).normal(size=300).astype(np.float32)
    cut, end = separated(source, 64, [0.25, 0.75])

    def one_by_one() -> Iterator[tuple[np.ndarray, float]]:
        for i, window in enumerate(cut):
            yield window[np.newaxis], end if i == len(cut) - 1 else np.inf

    np.testing.assert_array_equal(np.concatenate(list(overlap_add(one_by_one())))[..., 0], together(cut, end))


def test_a_window_that_strays_counts_for_little() -> None:
    source = np.random.default_rng(0).normal(size=2_000).astype(np.float32)
    cut, end = separated(source, 400, [0.5, 0.5])
    wrong = cut.copy()
    wrong[8] = wrong[8, :, :1] * [[2.0], [0.0]]  # all of the mixture is in the first source
    given = [np.arange(2)] * len(cut)
    right, found = together(cut, end, given), together(wrong, end, given)
    hop = hop_length(400)
    inside = slice(8 * hop, 8 * hop + 400)
    energy = np.square(right[inside]).sum()
    assert np.square(found[inside] - right[inside]).sum() < 0.001 * energy
    assert np.square(cut[8] - wrong[8]).sum() == pytest.approx(energy, rel=0.01)  # a mean of four has a 16th of it
    np.testing.assert_allclose(found.sum(axis=1), source, atol=1e-5)  # the sum stays


def test_silence_stays_silence() -> None:
    assert not together(np.zeros((5, 64, 2, 1), np.float32), 128, [np.arange(2)] * 5).any()
    assert list(overlap_add([])) == []
