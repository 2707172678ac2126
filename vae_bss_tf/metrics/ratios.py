"""PSNR, SSIM and the scale-invariant ratios SI-SDR, SI-SIR and SI-SAR."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from vae_bss_tf.errors import DataError

Array = npt.NDArray[np.floating[Any]]
Float64 = npt.NDArray[np.float64]

FLOOR_DB = -30.0
CEILING_DB = 100.0

_SSIM_WINDOW = 7
_SSIM_K1, _SSIM_K2 = 0.01, 0.03
_SILENT_ENERGY = 1e-20
_DEPENDENT_SOURCES = 1e-10


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


def flatten(signals: Array) -> Float64:
    """Flattens signals for a metric after checking them.

    Args:
        signals: float `[batch, num_sources, *shape]`.

    Returns:
        float64 `[batch, num_sources, size]`.

    Raises:
        DataError: There are fewer than three axes, or a value is not finite.
    """
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


def psnr(estimates: Array, sources: Array, peak: float = 1.0) -> Float64:
    """Peak signal-to-noise ratio, 10 log10(peak^2 / MSE).

    With `peak` equal to the gain that the sources were scaled by, this is the PSNR of full-scale images of peak 1
    ("psnr"). The paper's sources are digits times 1/2 and it does not say which peak it takes; with twice the gain this
    is the PSNR of halved images of peak 1 ("psnr_halved"), 6.02 dB higher.

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
    error = np.mean((flatten(estimates) - flatten(sources)) ** 2, axis=-1)
    return _decibels(np.full_like(error, peak**2), error)


def ssim(estimates: Array, sources: Array, data_range: float | Sequence[float] = 1.0) -> Float64:
    """Structural similarity of images (Wang, Bovik, Sheikh, Simoncelli 2004), as scikit-image computes it.

    Uniform 7 x 7 window, K1 = 0.01, K2 = 0.03, sample covariance; the mean is over the pixels whose window
    lies inside the image. Like `psnr`, a `data_range` equal to the gain of the sources gives the SSIM of
    full-scale images of range 1 ("ssim"), and twice that the SSIM of halved ones ("ssim_halved").

    Args:
        estimates: float `[batch, M, height, width]`, or with an axis of channels, over which the mean is taken, behind
            it; matched to the sources; 7 x 7 pixels or more.
        sources: float, of the same shape.
        data_range: Largest minus least possible value, greater than 0; several cost little more time than one.

    Returns:
        float64 `[batch, M]`, in [-1, 1]; 1 where both are equal, silence included. With several data ranges,
        `[num_ranges, batch, M]`.

    Raises:
        DataError: The shapes differ or are not images of 7 x 7 or more, or a value is not finite.
    """
    _check_same_shape(estimates, sources)
    if estimates.ndim not in (4, 5) or min(estimates.shape[2:4]) < _SSIM_WINDOW:
        raise DataError(
            f"SSIM needs [batch, num_sources, height, width] of {_SSIM_WINDOW} x {_SSIM_WINDOW} or more, and channels "
            f"of pictures in colour; got {estimates.shape}."
        )
    x, y = flatten(estimates).reshape(estimates.shape), flatten(sources).reshape(sources.shape)
    inside = slice(_SSIM_WINDOW // 2, -(_SSIM_WINDOW // 2))

    def local_mean(image: Float64) -> Float64:
        return ndimage.uniform_filter(image, size=_SSIM_WINDOW, axes=(2, 3))[:, :, inside, inside]

    unbiased = _SSIM_WINDOW**2 / (_SSIM_WINDOW**2 - 1)
    mean_x, mean_y = local_mean(x), local_mean(y)
    mean_product, mean_power = mean_x * mean_y, mean_x**2 + mean_y**2
    variances = unbiased * (local_mean(x * x + y * y) - mean_power)
    covariance = unbiased * (local_mean(x * y) - mean_product)

    def mean_similarity(one: float) -> Float64:
        c1, c2 = (_SSIM_K1 * one) ** 2, (_SSIM_K2 * one) ** 2
        similarity = ((2 * mean_product + c1) * (2 * covariance + c2)) / ((mean_power + c1) * (variances + c2))
        return similarity.mean(axis=tuple(range(2, similarity.ndim)))

    if isinstance(data_range, Sequence):
        return np.stack([mean_similarity(one) for one in data_range])
    return mean_similarity(data_range)


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
    e, s = flatten(estimates), flatten(sources)
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
