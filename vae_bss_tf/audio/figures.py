"""Pictures of recordings: the spectrograms of a mixture and of its sources in aligned rows."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DARKEST_DB, _BRIGHTEST_DB = -80, -15
_SILENCE = 1e-12


def spectrograms(
    waveforms: Mapping[str, npt.NDArray[np.float32]],
    sample_rate: float,
    *,
    n_fft: int = 512,
    hop_length: int = 64,
    certainty: tuple[npt.NDArray[np.float64], float] | None = None,
) -> "Figure":
    """Draws a row for each waveform, in dB over Hz and seconds.

    The darkest colour is 80 dB below the loudest point of the first waveform, the brightest 15 dB below it. A last,
    low row is dark where the order of the sources is not sure.

    Args:
        waveforms: float32 `[samples]` by the name that its row has, the mixture first; of any length.
        sample_rate: Samples per second of all.
        n_fft: Samples of a window.
        hop_length: Samples from window to window, at most `n_fft`.
        certainty: How sure the order of the sources is, `[windows]` in [0, 1], and the seconds from one of these
            windows to the next; None draws no such row.

    Returns:
        The figure.

    Example:
        >>> tone = np.sin(2 * np.pi * 440 * np.arange(8_000) / 8_000).astype(np.float32)
        >>> figure = spectrograms({"mixture": tone, "source 1": tone / 2}, 8_000)
        >>> len(figure.axes)
        2
    """
    from matplotlib.figure import Figure
    from matplotlib.mlab import specgram

    longest = max(map(len, waveforms.values()))
    heights = [1.6] * len(waveforms) + ([] if certainty is None else [0.3])
    figure = Figure(figsize=(9, 0.5 + sum(heights)), dpi=110, layout="constrained")
    axes = figure.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    loudest = None
    for axis, (title, waveform) in zip(axes, waveforms.items(), strict=False):
        padded = np.pad(waveform, (n_fft // 2, n_fft // 2 + longest - len(waveform)))  # frames around their times
        spectrum = specgram(padded, n_fft, sample_rate, noverlap=n_fft - hop_length, mode="magnitude")
        magnitude = np.asarray(spectrum[0], np.float64)
        loudest = max(float(magnitude.max()), _SILENCE) if loudest is None else loudest
        level = 20 * np.log10(np.maximum(magnitude / loudest, _SILENCE))
        seconds = (level.shape[1] - 0.5) * hop_length / sample_rate
        axis.imshow(
            level, cmap="magma", vmin=_DARKEST_DB, vmax=_BRIGHTEST_DB, origin="lower", aspect="auto",
            interpolation="antialiased", extent=(-0.5 * hop_length / sample_rate, seconds, 0, sample_rate / 2),
        )  # fmt: skip
        axis.set(ylabel=f"{title}\nHz", xlim=(0, longest / sample_rate))
    if certainty is not None:
        known, hop = certainty
        middle = 2 * hop  # a window is four hops long
        axes[-1].imshow(
            known[np.newaxis], cmap="gray", vmin=0, vmax=1, aspect="auto", interpolation="nearest",
            extent=(middle - hop / 2, middle + (len(known) - 0.5) * hop, 0, 1),
        )  # fmt: skip
        axes[-1].set(yticks=[], xlim=(0, longest / sample_rate))
        axes[-1].set_ylabel("order\nsure", rotation=0, ha="right", va="center")
    axes[-1].set_xlabel("s")
    return figure
