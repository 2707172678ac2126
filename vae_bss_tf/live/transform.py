"""Low-delay analysis and synthesis: a long asymmetric window to hear by, and a short one to answer by.

The analysis window rises over the past and falls over the last block alone; the synthesis window is two blocks long.
Their product is a Hann window of two blocks, so overlapping blocks add up to the signal (Mauler and Martin, "A low
delay, variable resolution, perfect reconstruction spectral analysis-synthesis system", EUSIPCO 2007). The latency is
two blocks, while the frequency resolution is that of 1,024 samples.

The transform of 1,024 samples is factored into two of 32 (Cooley and Tukey, 1965), as products with small matrices: a
graph of builtin operations that is cheap and small on every runtime.
"""

import functools
from typing import NamedTuple

import keras
import numpy as np
import numpy.typing as npt

from vae_bss_tf.live.config import N_FFT

Float32 = npt.NDArray[np.float32]

_SIDE = 32
_ROWS = _SIDE // 2 + 1  # the others are complex conjugates


def windows(hop_length: int) -> tuple[Float32, Float32]:
    """The two windows.

    Args:
        hop_length: Samples of a block; at most two fifths of 1,024.

    Returns:
        The analysis window, float32 `[1024]`, scaled so that a sine of amplitude 1 has a magnitude of 1, and the
        synthesis window, float32 `[2 * hop_length]`.

    Example:
        >>> analysis, synthesis = windows(88)
        >>> product = analysis[-176:] * synthesis
        >>> bool(np.allclose(product[:88] + product[88:], 1.0))
        True
    """
    rising, falling = N_FFT - hop_length, hop_length
    analysis = np.concatenate(
        [
            np.sin(np.pi / 2 * (np.arange(rising) + 0.5) / rising),
            np.cos(np.pi / 2 * (np.arange(falling) + 0.5) / falling),
        ]
    )
    product = np.sin(np.pi * (np.arange(2 * hop_length) + 0.5) / (2 * hop_length)) ** 2
    scale = 2 / analysis.sum()
    synthesis = product / analysis[-2 * hop_length :] / scale
    return (scale * analysis).astype(np.float32), synthesis.astype(np.float32)


def spectrum(frames: keras.KerasTensor) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Discrete Fourier transform of real frames.

    Args:
        frames: float32 `[n, 1024]`, windowed.

    Returns:
        The real and the imaginary part, each float32 `[n, 513]`, as `numpy.fft.rfft` gives them.
    """
    f, ops = _factors(), keras.ops
    grid = ops.reshape(frames, (-1, _SIDE, _SIDE))
    # With sample 32 r + c and bin i + 32 j: over r for each c, a twiddle, then over c for each i.
    real, imaginary = ops.matmul(f.cosine[:_ROWS], grid), -ops.matmul(f.sine[:_ROWS], grid)
    real, imaginary = (
        real * f.twiddle_cosine + imaginary * f.twiddle_sine,
        imaginary * f.twiddle_cosine - real * f.twiddle_sine,
    )
    real, imaginary = (
        ops.matmul(real, f.cosine) + ops.matmul(imaginary, f.sine),
        ops.matmul(imaginary, f.cosine) - ops.matmul(real, f.sine),
    )
    flat = (-1, _ROWS * _SIDE)
    real = ops.take(ops.reshape(real, flat), f.bin_places, axis=1)
    return real, ops.take(ops.reshape(imaginary, flat), f.bin_places, axis=1) * f.bin_signs


def signal(real: keras.KerasTensor, imaginary: keras.KerasTensor, tail: int = N_FFT) -> keras.KerasTensor:
    """Inverse of `spectrum`, or as much of its end as is asked for.

    Args:
        real: float32 `[n, 513]`.
        imaginary: The same shape.
        tail: Samples wanted, from 1 to 1,024.

    Returns:
        The last `tail` samples of the frames, float32 `[n, tail]`.
    """
    f, ops = _factors(), keras.ops
    first = (N_FFT - tail) // _SIDE  # rows of 32 samples that nobody asks for
    grid = (-1, _ROWS, _SIDE)
    real = ops.reshape(ops.take(real, f.grid_bins, axis=1), grid)
    imaginary = ops.reshape(ops.take(imaginary, f.grid_bins, axis=1) * f.grid_signs, grid)
    real, imaginary = (
        ops.matmul(real, f.cosine) - ops.matmul(imaginary, f.sine),
        ops.matmul(imaginary, f.cosine) + ops.matmul(real, f.sine),
    )
    real, imaginary = (
        real * f.twiddle_cosine - imaginary * f.twiddle_sine,
        imaginary * f.twiddle_cosine + real * f.twiddle_sine,
    )
    rows = ops.matmul(f.inverse_cosine[first:], real) - ops.matmul(f.inverse_sine[first:], imaginary)
    return ops.reshape(rows, (-1, N_FFT - first * _SIDE))[:, -tail:]


class _Factors(NamedTuple):
    """The constants of both directions; bin `i + 32 j` stands in row i, column j, for i up to 16."""

    cosine: Float32
    sine: Float32
    twiddle_cosine: Float32
    twiddle_sine: Float32
    bin_places: npt.NDArray[np.int32]
    bin_signs: Float32
    grid_bins: npt.NDArray[np.int32]
    grid_signs: Float32
    inverse_cosine: Float32
    inverse_sine: Float32


@functools.cache
def _factors() -> _Factors:
    index = np.arange(_SIDE)
    angles = 2 * np.pi * (np.outer(index, index) % _SIDE) / _SIDE
    twiddle = 2 * np.pi * np.outer(index[:_ROWS], index) / N_FFT
    bins = np.arange(N_FFT // 2 + 1)
    rows, columns = bins % _SIDE, bins // _SIDE
    stored = rows < _ROWS
    rows, columns = np.where(stored, rows, _SIDE - rows), np.where(stored, columns, _SIDE - 1 - columns)
    grid = index[:_ROWS, None] + _SIDE * index[None, :]
    kept = grid <= N_FFT // 2
    weights = np.where(np.isin(index[:_ROWS], (0, _ROWS - 1)), 1, 2)[None, :] / N_FFT
    return _Factors(
        cosine=np.cos(angles).astype(np.float32),
        sine=np.sin(angles).astype(np.float32),
        twiddle_cosine=np.cos(twiddle).astype(np.float32),
        twiddle_sine=np.sin(twiddle).astype(np.float32),
        bin_places=(rows * _SIDE + columns).astype(np.int32),
        bin_signs=np.where(stored, 1, -1).astype(np.float32),
        grid_bins=np.where(kept, grid, N_FFT - grid).reshape(-1).astype(np.int32),
        grid_signs=np.where(kept, 1, -1).reshape(-1).astype(np.float32),
        inverse_cosine=(weights * np.cos(angles[:, :_ROWS])).astype(np.float32),
        inverse_sine=(weights * np.sin(angles[:, :_ROWS])).astype(np.float32),
    )
