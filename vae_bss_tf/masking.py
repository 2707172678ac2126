"""The ratio mask of VAEM: source estimates rescaled so that they sum to the mixture.

Both functions run on two sets of operations: `keras.ops` (the default) and `numpy`, which needs no Keras.
"""

import types
from typing import Any

Array = Any  # a NumPy array or a tensor, as `ops` says

_SILENCE = 1e-30  # below any float32 that a division can be trusted with


def ratio_mask(estimates: Array, mixture: Array, exponent: float = 1.0, ops: types.ModuleType | None = None) -> Array:
    """Shares each pixel of the mixture among the sources in proportion to their estimates (paper, VAEM).

    s_k = x * s_hat_k^a / sum_j s_hat_j^a, in the paper with the exponent a = 1. Where every power is zero the pixel is
    shared equally, so that the sources sum to the mixture everywhere.

    Args:
        estimates: float32 `[batch, num_sources, ...]`, >= 0.
        mixture: float32 `[batch, ...]`; with `numpy` complex values are shared too.
        exponent: The exponent; > 0. With 2 magnitudes are shared by their powers, as by Wiener's filter.
        ops: `numpy` or `keras.ops`; None takes `keras.ops`.

    Returns:
        `[batch, num_sources, ...]` of the mixture's type, of sum `mixture` over axis 1 to its precision.

    Example:
        >>> estimates = np.array([[[1.0, 0.0], [3.0, 0.0]]], np.float32)
        >>> ratio_mask(estimates, np.array([[0.8, 0.5]], np.float32), ops=np)
        array([[[0.2 , 0.25],
                [0.6 , 0.25]]], dtype=float32)
    """
    return ratio_shares(estimates, exponent, ops) * _operations(ops).expand_dims(mixture, 1)


def ratio_shares(estimates: Array, exponent: float = 1.0, ops: types.ModuleType | None = None) -> Array:
    """The share of each source that `ratio_mask` multiplies the mixture by.

    Args:
        estimates: As in `ratio_mask`.
        exponent: As in `ratio_mask`.
        ops: As in `ratio_mask`.

    Returns:
        `[batch, num_sources, ...]` of the estimates' type, in [0, 1], of sum 1 over axis 1.
    """
    ops = _operations(ops)
    if exponent != 1:
        estimates = ops.power(estimates, exponent)
    total = ops.sum(estimates, axis=1, keepdims=True)
    silent = total < _SILENCE
    return ops.where(silent, 1.0 / estimates.shape[1], estimates / ops.where(silent, 1.0, total))


def _operations(ops: types.ModuleType | None) -> types.ModuleType:
    if ops is not None:
        return ops
    import keras

    return keras.ops
