"""A change of rate for sound that comes in portions."""

import numpy as np
import numpy.typing as npt


class Resampler:
    """Changes the rate of one channel (soxr, low quality: the shortest filter, for the shortest delay).

    Args:
        from_rate: Rate of what comes, Hz.
        to_rate: Rate wanted, Hz.

    Example:
        >>> double = Resampler(8_000, 16_000)
    """

    def __init__(self, from_rate: float, to_rate: float) -> None:
        self._stream = None
        if from_rate != to_rate:
            import soxr

            self._stream = soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32", quality="LQ")

    def __call__(self, samples: npt.NDArray[np.float32], last: bool = False) -> npt.NDArray[np.float32]:
        """Changes the rate of the next samples.

        Args:
            samples: float32 `[n]`; any number.
            last: Whether none follow.

        Returns:
            float32 `[m]`.
        """
        if self._stream is None:
            return samples
        return self._stream.resample_chunk(np.ascontiguousarray(samples, np.float32), last=last).reshape(-1)
