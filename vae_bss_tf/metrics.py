"""How good a separation is: PSNR, SSIM, the bss_eval measures, matching, and the count of active sources.

Everything is vectorised NumPy over `[batch, num_sources, *shape]`. Scores are decibels unless said otherwise
and are always finite: they are clipped to [`FLOOR_DB`, `CEILING_DB`], and silence has a defined score:

- silent estimate of a sounding source: `FLOOR_DB` for every measure of bss_eval (its PSNR is the zeros');
- sounding estimate of a silent source: `FLOOR_DB`;
- silent estimate of a silent source: `CEILING_DB`.

A source that a mixture lacks is all zeros; score it only where it is wanted, with `counts` telling which are there.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage, optimize

from vae_bss_tf.errors import DataError

Array = npt.NDArray[np.floating[Any]]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

FLOOR_DB = -30.0
CEILING_DB = 100.0

_SSIM_WINDOW = 7
_SSIM_K1, _SSIM_K2 = 0.01, 0.03
_SILENT_ENERGY = 1e-20
_DEPENDENT_SOURCES = 1e-10
_LEAST_SPREAD = 1.0  # dB


class BssEval(NamedTuple):
    """Ratios of bss_eval (Vincent, Gribonval, Fevotte 2006), float64, in dB.

    Attributes:
        sdr: Target over everything else.
        sir: Target over what the other sources left in the estimate.
        sar: Projection on all sources over what no source explains.
    """

    sdr: Float64
    sir: Float64
    sar: Float64


def _flatten(signals: Array) -> Float64:
    if signals.ndim < 3:
        raise DataError(f"signals have shape {signals.shape}; expected [batch, num_sources, ...].")
    if not np.all(np.isfinite(signals)):
        raise DataError("signals hold NaN or infinity; no score is defined for them.")
    return signals.reshape(*signals.shape[:2], -1).astype(np.float64)


def _check_same_shape(estimates: Array, sources: Array) -> None:
    if estimates.shape != sources.shape:
        raise DataError(f"estimates have shape {estimates.shape} but sources {sources.shape}; match them first.")


def _decibels(numerator: Float64, denominator: Float64) -> Float64:
    """10 log10 of a ratio, clipped; 0 / 0 is the floor."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(numerator > 0, numerator / denominator, 0.0)
        return np.clip(10 * np.log10(ratio), FLOOR_DB, CEILING_DB)


def pairwise_mse(estimates: Array, sources: Array) -> Float64:
    """Mean squared error of each estimate against each source.

    Args:
        estimates: float `[batch, K, *shape]`.
        sources: float `[batch, M, *shape]`.

    Returns:
        float64 `[batch, K, M]`, 0 or more.
    """
    e, s = _flatten(estimates), _flatten(sources)
    energies = np.sum(e**2, -1)[:, :, None] + np.sum(s**2, -1)[:, None, :]
    return np.maximum(energies - 2 * e @ s.swapaxes(1, 2), 0.0) / e.shape[-1]


def psnr(estimates: Array, sources: Array, peak: float = 1.0) -> Float64:
    """Peak signal-to-noise ratio, 10 log10(peak^2 / MSE).

    The paper's sources are digits times 1/2. With `peak` the gain that the sources were scaled by, this is the PSNR of
    full-scale digits of peak 1 ("psnr"); with twice that (1 for the paper's sources) it is the PSNR of halved digits
    ("psnr_halved"), 6.02 dB higher. The paper does not say which it reports.

    Args:
        estimates: float `[batch, M, *shape]`, matched to the sources.
        sources: float `[batch, M, *shape]`.
        peak: The value that counts as full scale, greater than 0.

    Returns:
        float64 `[batch, M]`, in dB, at most `CEILING_DB`.

    Raises:
        DataError: The shapes differ, or a value is not finite.
    """
    _check_same_shape(estimates, sources)
    error = np.mean((_flatten(estimates) - _flatten(sources)) ** 2, axis=-1)
    return _decibels(np.full_like(error, peak**2), error)


def ssim(estimates: Array, sources: Array, data_range: float = 1.0) -> Float64:
    """Structural similarity of images (Wang, Bovik, Sheikh, Simoncelli 2004), as scikit-image computes it.

    Uniform 7 x 7 window, K1 = 0.01, K2 = 0.03, sample covariance; the mean is over the pixels whose window
    lies inside the image. Like `psnr`, a `data_range` equal to the gain of the sources gives the SSIM of
    full-scale digits of range 1 ("ssim"), and twice that the SSIM of halved digits ("ssim_halved").

    Args:
        estimates: float `[batch, M, height, width]`, matched to the sources; 7 x 7 pixels or more.
        sources: float `[batch, M, height, width]`.
        data_range: Largest minus least possible value, greater than 0.

    Returns:
        float64 `[batch, M]`, in [-1, 1]; 1 where both are equal, silence included.

    Raises:
        DataError: The shapes differ or are not images of 7 x 7 or more, or a value is not finite.
    """
    return ssim_at_ranges(estimates, sources, (data_range,))[0]


def ssim_at_ranges(estimates: Array, sources: Array, data_ranges: Sequence[float]) -> list[Float64]:
    """`ssim` for several data ranges, in little more than the time of one.

    Args:
        estimates: As in `ssim`.
        sources: As in `ssim`.
        data_ranges: Each as in `ssim`.

    Returns:
        What `ssim` gives for each data range.

    Raises:
        DataError: As in `ssim`.
    """
    _check_same_shape(estimates, sources)
    if estimates.ndim != 4 or min(estimates.shape[2:]) < _SSIM_WINDOW:
        raise DataError(
            f"SSIM needs [batch, num_sources, height, width] of {_SSIM_WINDOW} x {_SSIM_WINDOW} or more; "
            f"got {estimates.shape}."
        )
    x, y = _flatten(estimates).reshape(estimates.shape), _flatten(sources).reshape(sources.shape)
    inside = slice(_SSIM_WINDOW // 2, -(_SSIM_WINDOW // 2))

    def local_mean(image: Float64) -> Float64:
        return ndimage.uniform_filter(image, size=_SSIM_WINDOW, axes=(2, 3))[:, :, inside, inside]

    unbiased = _SSIM_WINDOW**2 / (_SSIM_WINDOW**2 - 1)
    mean_x, mean_y = local_mean(x), local_mean(y)
    mean_product, mean_power = mean_x * mean_y, mean_x**2 + mean_y**2
    variances = unbiased * (local_mean(x * x + y * y) - mean_power)
    covariance = unbiased * (local_mean(x * y) - mean_product)

    def mean_similarity(data_range: float) -> Float64:
        c1, c2 = (_SSIM_K1 * data_range) ** 2, (_SSIM_K2 * data_range) ** 2
        similarity = ((2 * mean_product + c1) * (2 * covariance + c2)) / ((mean_power + c1) * (variances + c2))
        return similarity.mean(axis=(2, 3))

    return [mean_similarity(data_range) for data_range in data_ranges]


def pairwise_si_bss_eval(estimates: Array, sources: Array) -> BssEval:
    """Scale-invariant SDR, SIR and SAR of each estimate as each source.

    bss_eval with a filter of one tap: an estimate e is split into its projection t on source m, the rest of
    its projection p on the span of all the mixture's sources, and what remains. SI-SDR = |t|^2 / |e - t|^2
    (Le Roux, Wisdom, Erdogan, Hershey 2019), SI-SIR = |t|^2 / |p - t|^2, SI-SAR = |p|^2 / |e - p|^2. The mean
    is not removed. A negative correlation counts like a positive one, as in bss_eval.

    Args:
        estimates: float `[batch, K, *shape]`.
        sources: float `[batch, M, *shape]`; absent sources are zeros. Linearly dependent sources (identical
            ones too) count as one direction: an estimate of them has no interference and its SIR is the ceiling.

    Returns:
        Three float64 `[batch, K, M]`.

    Raises:
        DataError: A value is not finite.
    """
    e, s = _flatten(estimates), _flatten(sources)
    gram = s @ s.swapaxes(1, 2)
    cross = e @ s.swapaxes(1, 2)
    energy = np.sum(e**2, -1)[:, :, None]
    source_energy = np.diagonal(gram, axis1=1, axis2=2)[:, None, :]
    inverse = np.linalg.pinv(gram, rcond=_DEPENDENT_SOURCES, hermitian=True)
    projection = np.einsum("bkm,bmn,bkn->bk", cross, inverse, cross)[:, :, None]
    projection = np.clip(projection, 0.0, energy)
    with np.errstate(divide="ignore", invalid="ignore"):
        target = np.where(source_energy > _SILENT_ENERGY, cross**2 / source_energy, 0.0)
    target = np.minimum(target, projection)

    both_silent = (energy <= _SILENT_ENERGY) & (source_energy <= _SILENT_ENERGY)

    def scores(numerator: Float64, denominator: Float64) -> Float64:
        return np.where(both_silent, CEILING_DB, _decibels(numerator, denominator))

    whole = np.broadcast_to(projection, target.shape)
    return BssEval(
        sdr=scores(target, energy - target),
        sir=scores(target, projection - target),
        sar=scores(np.where(source_energy > _SILENT_ENERGY, whole, 0.0), energy - projection),
    )


def si_bss_eval(estimates: Array, sources: Array) -> BssEval:
    """Scale-invariant SDR, SIR and SAR of estimates that are matched to the sources.

    Args:
        estimates: float `[batch, M, *shape]`; estimate m stands for source m.
        sources: float `[batch, M, *shape]`; absent sources are zeros.

    Returns:
        Three float64 `[batch, M]`; definitions and errors as `pairwise_si_bss_eval`.
    """
    _check_same_shape(estimates, sources)
    return BssEval(*(np.diagonal(x, axis1=1, axis2=2).copy() for x in pairwise_si_bss_eval(estimates, sources)))


def bss_eval(estimates: Array, sources: Array, filter_length: int = 512) -> BssEval:
    """SDR, SIR and SAR of bss_eval version 3, for waveforms.

    The square cosines between an estimate and the subspaces of the shifted sources are fast_bss_eval's
    (Scheibler 2022).

    Args:
        estimates: float `[batch, M, samples]`; estimate m stands for source m.
        sources: float `[batch, M, samples]`; absent sources are zeros. Sources that are filtered versions of
            each other make the decomposition singular: they are told apart by a diagonal load of 1e-10.
        filter_length: Taps of the distortion filter that is allowed.

    Returns:
        Three float64 `[batch, M]`, in dB.

    Raises:
        DataError: The shapes differ or a value is not finite.
    """
    from fast_bss_eval.numpy import square_cosine_metrics

    _check_same_shape(estimates, sources)
    e, s = _flatten(estimates), _flatten(sources)
    source_sounds = np.sum(s**2, -1) > _SILENT_ENERGY
    estimate_sounds = np.sum(e**2, -1) > _SILENT_ENERGY
    scores = np.where(source_sounds | estimate_sounds, FLOOR_DB, CEILING_DB)[None].repeat(3, axis=0)
    for present in np.unique(source_sounds, axis=0):
        rows = np.flatnonzero((source_sounds == present).all(axis=1))
        if not present.any():
            continue
        part = np.ix_(rows, np.flatnonzero(present))
        # A silent estimate has no direction; any signal may stand for it, its scores are not kept.
        stand_in = np.where(estimate_sounds[part][..., None], e[part], s[part])
        cosines = square_cosine_metrics(s[part], stand_in, filter_length=filter_length, load_diag=_DEPENDENT_SOURCES)
        target, projection = (np.clip(np.diagonal(x, axis1=1, axis2=2), 0.0, 1.0) for x in cosines)
        projection = np.maximum(projection, target)
        found = (
            _decibels(target, 1 - target),
            _decibels(target, projection - target),
            _decibels(projection, 1 - projection),
        )
        for kind, values in enumerate(found):
            scores[kind][part] = np.where(estimate_sounds[part], values, FLOOR_DB)
    return BssEval(*scores)


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
    energy = np.sum(_flatten(estimates) ** 2, axis=-1)
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


def activity_levels(estimates: Array) -> Float64:
    """Level of each output in dB, the statistic that `count_active` compares with its threshold.

    A source has one level whatever number of others it is mixed with (`DataConfig.num_mixed`), so the level is
    absolute, not a share of the mixture.

    Args:
        estimates: float `[batch, K, *shape]`, the masked outputs, in [0, 1].

    Returns:
        float64 `[batch, K]`: 10 log10 of the mean square, at least -80 dB.
    """
    return 10 * np.log10(np.mean(_flatten(estimates) ** 2, axis=-1) + 1e-8)


def fit_activity_threshold(levels: Float64) -> float:
    """Finds the level that parts silent outputs from active ones, with no label: the minimum-error threshold.

    Active outputs lie within a few dB, silent ones over tens of dB. Each class is taken for a Normal of its own width,
    and the threshold is that of the most likely division (Kittler & Illingworth 1986, on the sorted levels themselves
    rather than a histogram); one that favours classes of equal width would call the louder silent outputs active.

    Args:
        levels: float `[...]`, `activity_levels` of a model's outputs on TRAINING mixtures, which hold silent and
            active outputs alike (a model with K = 4 on mixtures of 1 to 4 sources).

    Returns:
        The threshold in dB. Standard deviations below 1 dB are taken for 1 dB: a class of equal levels, as at the
        lowest that `activity_levels` gives, is not infinitely likely.

    Raises:
        DataError: Fewer than two different levels.
    """
    ordered = np.sort(np.ravel(levels))
    if len(ordered) < 2 or ordered[0] == ordered[-1]:
        raise DataError("an activity threshold needs at least two different levels.")
    share = np.arange(1, len(ordered)) / len(ordered)
    spread_below, spread_above = _running_deviations(ordered), _running_deviations(ordered[::-1])[::-1]
    below = share * (np.log(np.maximum(spread_below, _LEAST_SPREAD)) - np.log(share))
    above = (1 - share) * (np.log(np.maximum(spread_above, _LEAST_SPREAD)) - np.log(1 - share))
    split = int(np.argmin(below + above))
    return float((ordered[split] + ordered[split + 1]) / 2)


def _running_deviations(values: Float64) -> Float64:
    """Standard deviations of the first one, two, ... all but one of the values."""
    centred = values - values.mean()
    number = np.arange(1, len(values))
    mean = np.cumsum(centred)[:-1] / number
    return np.sqrt(np.maximum(np.cumsum(centred**2)[:-1] / number - mean**2, 0.0))


def count_active(estimates: Array, threshold: float) -> Int64:
    """Counts the outputs that hold a source: those whose `activity_levels` is above the threshold.

    Args:
        estimates: float `[batch, K, *shape]`, the masked outputs.
        threshold: dB, of `fit_activity_threshold`.

    Returns:
        int64 `[batch]`, from 0 to K.
    """
    return np.count_nonzero(activity_levels(estimates) > threshold, axis=1).astype(np.int64)


def count_confusion(true_counts: Int64, found_counts: Int64, num_sources: int) -> Int64:
    """Confusion matrix of the number of sources.

    Args:
        true_counts: int `[batch]`, from 0 to `num_sources`.
        found_counts: int `[batch]`, from 0 to `num_sources`.
        num_sources: K.

    Returns:
        int64 `[K + 1, K + 1]`: row = sources in the mixture, column = sources found.
    """
    matrix = np.zeros((num_sources + 1, num_sources + 1), dtype=np.int64)
    np.add.at(matrix, (np.asarray(true_counts), np.asarray(found_counts)), 1)
    return matrix
