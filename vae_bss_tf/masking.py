"""The run-time mask of VAEM: source estimates rescaled so that they sum to the mixture."""

import keras

_SILENCE = 1e-30  # below any float32 that a division can be trusted with


def ratio_mask(estimates: keras.KerasTensor, mixture: keras.KerasTensor, exponent: float = 1.0) -> keras.KerasTensor:
    """Shares each pixel of the mixture among the sources in proportion to their estimates (paper, VAEM).

    s_k = x * s_hat_k^a / sum_j s_hat_j^a, in the paper with the exponent a = 1. Where every power is zero the pixel is
    shared equally, so that the sources sum to the mixture everywhere.

    Args:
        estimates: float32 `[batch, num_sources, ...]`, >= 0.
        mixture: float32 `[batch, ...]`.
        exponent: The exponent; > 0. With 2 magnitudes are shared by their powers, as by Wiener's filter.

    Returns:
        float32 `[batch, num_sources, ...]`, of sum `mixture` over axis 1 to float32 precision.
    """
    num_sources = estimates.shape[1]
    if exponent != 1:
        estimates = keras.ops.power(estimates, exponent)
    total = keras.ops.sum(estimates, axis=1, keepdims=True)
    silent = total < _SILENCE
    share = keras.ops.where(silent, 1.0 / num_sources, estimates / keras.ops.where(silent, 1.0, total))
    return share * keras.ops.expand_dims(mixture, 1)
