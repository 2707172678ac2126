"""Checks of what a user hands in, with no TensorFlow."""

import numpy as np
import numpy.typing as npt

from vae_bss_tf.errors import DataError


def check_mixtures(mixtures: npt.ArrayLike, input_shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Returns mixtures as a float32 array after checking them.

    Args:
        mixtures: `[*input_shape]` or `[num_mixtures, *input_shape]`.
        input_shape: Shape of one mixture.

    Returns:
        The same values, float32.

    Raises:
        DataError: The shape is another, there is no mixture, a value is not finite, or outside [0, 1].
    """
    try:
        with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite and is refused below
            array = np.asarray(mixtures).astype(np.float32, copy=False)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"mixtures are no array of numbers ({error}); give a float array.") from error
    if array.shape[-len(input_shape) :] != tuple(input_shape) or array.ndim > len(input_shape) + 1:
        raise DataError(
            f"mixtures have shape {array.shape}; expected {tuple(input_shape)} or (n, {str(tuple(input_shape))[1:]}."
        )
    if array.size == 0:
        raise DataError("no mixtures were given; expected at least one.")
    if not np.isfinite(array).all():
        raise DataError("mixtures hold NaN or infinite values; remove them first.")
    if array.min() < 0 or array.max() > 1 + 1e-5:  # a sum of sources may round past 1
        raise DataError(f"mixtures range from {array.min():.3g} to {array.max():.3g}; scale them to [0, 1] first.")
    return array
