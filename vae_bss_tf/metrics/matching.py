"""Matching of estimates to true sources, and what is left over."""

import numpy as np
import numpy.typing as npt
from scipy import optimize

from vae_bss_tf.errors import DataError
from vae_bss_tf.metrics.ratios import Array, Float64, flatten

Int64 = npt.NDArray[np.int64]


def pairwise_mse(estimates: Array, sources: Array) -> Float64:
    """Mean squared error of each estimate against each source.

    Args:
        estimates: float `[batch, K, *shape]`.
        sources: float `[batch, M, *shape]`.

    Returns:
        float64 `[batch, K, M]`, 0 or more.
    """
    e, s = flatten(estimates), flatten(sources)
    energies = np.sum(e**2, -1)[:, :, None] + np.sum(s**2, -1)[:, None, :]
    return np.maximum(energies - 2 * e @ s.swapaxes(1, 2), 0.0) / e.shape[-1]


def match_sources(scores: Float64, counts: Int64 | None = None) -> Int64:
    """Matches the K estimates of a mixture to its M <= K sources: the best total score (Hungarian method).

    Args:
        scores: float `[batch, K, M]`, larger is better; `-pairwise_mse(...)` matches by PSNR's error.
        counts: int `[batch]`, how many of the M sources the mixture holds (the first ones); all by default.

    Returns:
        int64 `[batch, M]`, the index of each source's estimate; -1 for a source that is not there. No estimate
        stands for two sources.

    Raises:
        DataError: There are more sources than estimates, or a score is not finite.
    """
    batch, num_estimates, num_sources = scores.shape
    present = np.full(batch, num_sources) if counts is None else np.asarray(counts)
    if batch and present.max() > num_estimates:
        raise DataError(f"{num_estimates} estimates cannot match {present.max()} sources; use a larger K.")
    if not np.all(np.isfinite(scores)):
        raise DataError("scores hold NaN or infinity; the matching is not defined.")
    assignment = np.full((batch, num_sources), -1, dtype=np.int64)
    for row, count in enumerate(present):
        estimate, source = optimize.linear_sum_assignment(scores[row, :, :count], maximize=True)
        assignment[row, source] = estimate
    return assignment


def take_matched(estimates: Array, assignment: Int64) -> Array:
    """Returns the estimates in the order of the sources.

    Args:
        estimates: `[batch, K, *shape]`.
        assignment: int64 `[batch, M]` of `match_sources`.

    Returns:
        `[batch, M, *shape]`; zeros where the source is not there.
    """
    index = assignment.reshape(*assignment.shape, *[1] * (estimates.ndim - 2))
    return np.where(index >= 0, np.take_along_axis(estimates, np.maximum(index, 0), axis=1), 0)


def output_shares(estimates: Array) -> Float64:
    """Each output's share of the energy of all outputs of its mixture.

    Args:
        estimates: float `[batch, K, *shape]`.

    Returns:
        float64 `[batch, K]`, in [0, 1], summing to 1; zeros where all outputs are silent.
    """
    energy = np.sum(flatten(estimates) ** 2, axis=-1)
    total = energy.sum(axis=1, keepdims=True)
    return energy / np.where(total > 0, total, 1.0)


def dropped_energy(estimates: Array, assignment: Int64) -> Float64:
    """Share of the outputs' energy that is in outputs matched to no source (over-separation).

    Args:
        estimates: float `[batch, K, *shape]`, all K outputs.
        assignment: int64 `[batch, M]` of `match_sources`.

    Returns:
        float64 `[batch]`, in [0, 1]; 0 when no output is dropped or all are silent.
    """
    shares = output_shares(estimates)
    outputs = np.arange(estimates.shape[1])
    kept = (assignment[:, :, None] == outputs).any(axis=1)
    return np.where(kept, 0.0, shares).sum(axis=1)
