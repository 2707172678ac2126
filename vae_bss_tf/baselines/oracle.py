"""Bounds: masks that know the true sources, and estimates that do nothing. NumPy only."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from vae_bss_tf.errors import DataError
from vae_bss_tf.masking import ratio_mask

Array = npt.NDArray[np.floating[Any]]
Mask = Callable[[Any, Any], Any]

IRM_EXPONENT = 2.0


def ideal_binary_mask(mixtures: Array, sources: Array) -> Array:
    """Oracle: each bin of the mixture goes whole to the source that is largest there (IBM).

    The exponent of the magnitudes does not matter. Where sources are equal, silence included, the first takes
    the bin.

    Args:
        mixtures: float or complex `[n, *shape]`, pixels or a spectrogram.
        sources: float or complex `[n, num_sources, *shape]`, the true sources.

    Returns:
        `[n, num_sources, *shape]` of the mixtures' type; the sources sum to the mixture.

    Raises:
        DataError: The shapes do not go together.
    """
    _check_shapes(mixtures, sources)
    largest = np.argmax(np.abs(sources), axis=1)
    index = np.arange(sources.shape[1]).reshape(1, -1, *[1] * (mixtures.ndim - 1))
    return np.where(index == largest[:, None], mixtures[:, None], 0).astype(mixtures.dtype)


def ideal_ratio_mask(mixtures: Array, sources: Array, exponent: float = IRM_EXPONENT) -> Array:
    """Oracle: each bin is shared in proportion to |source|^exponent (IRM).

    With the exponent 2, the default, it is the Wiener filter of the true powers. With 1 it would give non-negative
    sources that add up, such as digits, back without error.

    Args:
        mixtures: float or complex `[n, *shape]`, pixels or a spectrogram.
        sources: float or complex `[n, num_sources, *shape]`, the true sources.
        exponent: Greater than 0.

    Returns:
        `[n, num_sources, *shape]` of the mixtures' type; the sources sum to the mixture. A bin where all sources are
        silent is shared equally.

    Raises:
        DataError: The shapes do not go together.
    """
    _check_shapes(mixtures, sources)
    return ratio_mask(np.abs(sources), mixtures, exponent, np).astype(mixtures.dtype)


MASKS: dict[str, Mask] = {"ibm": ideal_binary_mask, "irm": ideal_ratio_mask}


def trivial_estimates(mixtures: Array, num_sources: int) -> dict[str, Array]:
    """The estimates that separate nothing, which every system must beat.

    Args:
        mixtures: float `[n, *shape]`.
        num_sources: K.

    Returns:
        `[n, num_sources, *shape]` for "zeros", "mixture" (each source is the whole mixture) and "mixture/k" (each is
        an equal share of it).
    """
    whole = np.repeat(mixtures[:, None], num_sources, axis=1)
    return {"zeros": np.zeros_like(whole), "mixture": whole, "mixture/k": whole / num_sources}


def _check_shapes(mixtures: Array, sources: Array) -> None:
    if sources.ndim != mixtures.ndim + 1 or sources[:, 0].shape != mixtures.shape:
        raise DataError(f"sources of shape {sources.shape} do not belong to mixtures of shape {mixtures.shape}.")
