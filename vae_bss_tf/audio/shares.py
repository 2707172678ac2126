"""What a model cannot hear is shared among the sources by their energy."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from vae_bss_tf.audio.recordings import SILENCE

Array = npt.NDArray[np.float32]

_SHARE_SAMPLES = 512  # at the model's rate: how often the sources' shares of the rest are taken


class Shares:
    """The sources' shares of the energy as time goes on, from their waveforms at the model's rate."""

    def __init__(self, num_sources: int, sample_rate: float) -> None:
        self._sample_rate = sample_rate
        self._last = np.full(num_sources, 1 / num_sources)
        self._position = 0
        self._times: list[float] = []
        self._shares: list[npt.NDArray[np.float64]] = []

    def observed(self, blocks: Iterator[Array]) -> Iterator[Array]:
        """Passes on blocks `[samples, num_sources, channels]` and takes note of their energy."""
        for block in blocks:
            for start in range(0, len(block), _SHARE_SAMPLES):
                piece = block[start : start + _SHARE_SAMPLES]
                energy = np.square(piece, dtype=np.float64).sum(axis=(0, 2))
                if energy.sum() > SILENCE**2 * len(piece):
                    self._last = energy / energy.sum()
                self._position += len(piece)
                self._times.append(self._position / self._sample_rate)
                self._shares.append(self._last)
            yield block

    def at(self, first: int, count: int, sample_rate: float) -> Array:
        """Shares at `count` > 0 samples from the sample `first` on, float32 `[count, num_sources]`, of sum 1."""
        times = (first + np.arange(count)) / sample_rate
        while len(self._times) > 2 and self._times[1] <= times[0]:
            del self._times[0], self._shares[0]
        known = np.stack(self._shares, axis=1)
        return np.stack([np.interp(times, self._times, share) for share in known], axis=1).astype(np.float32)
