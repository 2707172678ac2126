"""Short-time Fourier transform and its inverse, and what a model sees of a waveform.

Every function is written once and runs on two sets of operations: `numpy` (the default; no TensorFlow) and
`keras.ops`, named by the argument `ops`. Framing and overlap-add are reshapes, pads and sums, complex numbers
are pairs of real ones, and with `fft=False` the transform is a matrix product: a graph of these functions then
converts to TFLite and ONNX with builtin operations only. The fast transform gives the same to float32 rounding.
"""

import functools
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from vae_bss_tf.config import AudioConfig
from vae_bss_tf.masking import ratio_shares

Array = Any  # a NumPy array or a tensor, as `ops` says
SILENCE = 1e-8


def stft(waveforms: Array, config: AudioConfig, ops: types.ModuleType = np, *, fft: bool = True) -> tuple[Array, Array]:
    """Short-time Fourier transform with a periodic Hann window and frames centred on multiples of the hop.

    The first `num_frames` frames of `librosa.stft(..., center=True, pad_mode="constant")`, transposed.

    Args:
        waveforms: float32 `[batch, num_samples]`, in [-1, 1].
        config: The spectrogram's settings.
        ops: `numpy` or `keras.ops`.
        fft: Whether to use the fast transform; False where the graph is to be converted.

    Returns:
        The real and the imaginary part, each float32 `[batch, num_frames, n_fft // 2 + 1]`.
    """
    frames, hop, overlap = config.num_frames, config.hop_length, config.n_fft // config.hop_length
    before = config.n_fft // 2
    padded = ops.pad(waveforms, [[0, 0], [before, config.n_fft - config.hop_length - before]])
    blocks = ops.reshape(padded, (-1, frames + overlap - 1, hop))
    framed = ops.concatenate([blocks[:, i : i + frames] for i in range(overlap)], axis=2)
    if not fft:
        real, imaginary = _dft_matrices(config.n_fft)
        return ops.matmul(framed, real), ops.matmul(framed, imaginary)
    windowed = framed * _window(config.n_fft).astype(np.float32)
    if ops is np:
        spectrum = np.fft.rfft(windowed)
        return spectrum.real, spectrum.imag
    return ops.rfft(windowed)


def istft(real: Array, imaginary: Array, config: AudioConfig, ops: types.ModuleType = np, *, fft: bool = True) -> Array:
    """Inverse of `stft`: windowed overlap-add over the sum of squared windows (Griffin and Lim, 1984).

    Args:
        real: float32 `[batch, num_frames, n_fft // 2 + 1]`.
        imaginary: The same shape.
        config: The spectrogram's settings.
        ops: `numpy` or `keras.ops`.
        fft: As in `stft`.

    Returns:
        float32 `[batch, num_samples]`; `istft(*stft(x))` equals x to float32 rounding.
    """
    frames, hop, overlap = config.num_frames, config.hop_length, config.n_fft // config.hop_length
    if not fft:
        from_real, from_imaginary = _inverse_dft_matrices(config.n_fft)
        framed = ops.matmul(real, from_real) + ops.matmul(imaginary, from_imaginary)
    elif ops is np:
        framed = np.fft.irfft(real + 1j * imaginary, config.n_fft) * _window(config.n_fft).astype(np.float32)
    else:
        framed = ops.irfft((real, imaginary), config.n_fft) * _window(config.n_fft).astype(np.float32)
    blocks = ops.pad(framed[:, :, :hop], [[0, 0], [0, overlap - 1], [0, 0]])
    for i in range(1, overlap):
        part = framed[:, :, i * hop : (i + 1) * hop]
        blocks = blocks + ops.pad(part, [[0, 0], [i, overlap - 1 - i], [0, 0]])
    summed = ops.reshape(blocks, (-1, (frames + overlap - 1) * hop))
    before = config.n_fft // 2
    return summed[:, before : before + config.num_samples] * _inverse_window_sum(config)


def features(
    real: Array, imaginary: Array, config: AudioConfig, ops: types.ModuleType = np, *, scale: Array | None = None
) -> Array:
    """What a model reads of a mixture: its compressed magnitudes, scaled to a largest value of 1.

    Args:
        real: float32 `[batch, num_frames, n_fft // 2 + 1]`.
        imaginary: The same shape.
        config: The spectrogram's settings.
        ops: `numpy` or `keras.ops`.
        scale: float32 `[batch, 1, 1]`, the magnitude that stands for 1, for a source on its mixture's scale;
            None takes each one's own largest.

    Returns:
        float32 `[batch, num_frames / frame_pooling, num_bins]`, in [0, 1]; zeros for silence.
    """
    magnitude = _pooled_magnitude(real, imaginary, config, ops)
    if scale is None:
        scale = ops.max(magnitude, axis=(1, 2), keepdims=True)
    return compress(magnitude / ops.maximum(scale, SILENCE), config, ops)


def largest_magnitude(real: Array, imaginary: Array, config: AudioConfig, ops: types.ModuleType = np) -> Array:
    """The magnitude that `features` scales to 1.

    Args:
        real: float32 `[batch, num_frames, n_fft // 2 + 1]`.
        imaginary: The same shape.
        config: The spectrogram's settings.
        ops: `numpy` or `keras.ops`.

    Returns:
        float32 `[batch, 1, 1]`.
    """
    return ops.max(_pooled_magnitude(real, imaginary, config, ops), axis=(1, 2), keepdims=True)


def compress(magnitude: Array, config: AudioConfig, ops: types.ModuleType = np) -> Array:
    """Compresses magnitudes in [0, 1]: to the power `config.power`.

    Args:
        magnitude: float32, any shape, in [0, 1].
        config: The spectrogram's settings.
        ops: `numpy` or `keras.ops`.

    Returns:
        float32 of the same shape, in [0, 1].
    """
    return ops.power(magnitude, config.power)


def expand(compressed: Array, config: AudioConfig, ops: types.ModuleType = np) -> Array:
    """Inverse of `compress`.

    Args:
        compressed: float32, any shape, in [0, 1].
        config: The spectrogram's settings.
        ops: `numpy` or `keras.ops`.

    Returns:
        float32 of the same shape: magnitudes in [0, 1].
    """
    return ops.power(compressed, 1 / config.power)


def source_masks(sources: Array, config: AudioConfig, ops: types.ModuleType = np) -> Array:
    """Ratio masks for the STFT of a mixture from a model's sources (paper, section 2.4).

    Each source's magnitude over the sum of all; pooled frames are repeated and the bins that the model does
    not see take the mask of the last one that it does. Where every source is zero the mask is 1 / K.

    Args:
        sources: float32 `[batch, num_sources, num_frames / frame_pooling, num_bins]`, compressed, in [0, 1].
        config: The spectrogram's settings.
        ops: `numpy` or `keras.ops`.

    Returns:
        float32 `[batch, num_sources, num_frames, n_fft // 2 + 1]`, in [0, 1]; their sum over sources is 1.
    """
    return ratio_shares(full_magnitudes(sources, config, ops) + SILENCE, ops=ops)


def full_magnitudes(sources: Array, config: AudioConfig, ops: types.ModuleType = np) -> Array:
    """Magnitudes on the STFT's own frames and bins, from what a model gives.

    Args:
        sources: float32 `[batch, num_sources, num_frames / frame_pooling, num_bins]`, compressed, in [0, 1].
        config: The spectrogram's settings.
        ops: `numpy` or `keras.ops`.

    Returns:
        float32 `[batch, num_sources, num_frames, n_fft // 2 + 1]`, in [0, 1]: pooled frames are repeated, and bins
        that the model does not see are as the last one that it does.
    """
    magnitude = expand(sources, config, ops)
    if config.frame_pooling > 1:
        magnitude = ops.repeat(magnitude, config.frame_pooling, axis=2)
    unseen = config.num_frequencies - config.num_bins
    if unseen:
        magnitude = ops.concatenate([magnitude] + [magnitude[:, :, :, -1:]] * unseen, axis=3)
    return magnitude


def apply_masks(
    real: Array,
    imaginary: Array,
    masks: Array,
    config: AudioConfig,
    ops: types.ModuleType = np,
    *,
    fft: bool = True,
) -> Array:
    """Waveforms of the sources: each mask on the mixture's complex STFT, then the inverse.

    Args:
        real: float32 `[batch, num_frames, n_fft // 2 + 1]`, of the mixtures.
        imaginary: The same shape.
        masks: float32 `[batch, num_sources, num_frames, n_fft // 2 + 1]`, as `source_masks` gives them.
        config: The spectrogram's settings.
        ops: `numpy` or `keras.ops`.
        fft: As in `stft`.

    Returns:
        float32 `[batch, num_sources, num_samples]`; their sum is the mixture.
    """
    num_sources = masks.shape[1]
    flat = (-1, config.num_frames, config.num_frequencies)
    waveforms = istft(
        ops.reshape(masks * ops.expand_dims(real, 1), flat),
        ops.reshape(masks * ops.expand_dims(imaginary, 1), flat),
        config,
        ops,
        fft=fft,
    )
    return ops.reshape(waveforms, (-1, num_sources, config.num_samples))


def decode_waveforms(waveforms: Array, estimates: Array, config: AudioConfig) -> Array:
    """Waveforms of a decoder's outputs: their magnitudes as they are, the mixture's phases (VAE).

    Args:
        waveforms: float32 `[batch, num_samples]`, the mixtures.
        estimates: float32 `[batch, num_sources, num_frames / frame_pooling, num_bins]`, compressed, in [0, 1].
        config: The spectrogram's settings.

    Returns:
        float32 `[batch, num_sources, num_samples]`.
    """
    real, imaginary = stft(waveforms, config)
    scale = largest_magnitude(real, imaginary, config)
    magnitudes = full_magnitudes(estimates, config) * scale[:, np.newaxis]
    own = np.maximum(np.hypot(real, imaginary), SILENCE)[:, np.newaxis]
    return apply_masks(real, imaginary, magnitudes / own, config)


def separate_waveforms(
    waveforms: Array,
    separate: Callable[[Array], Array],
    config: AudioConfig,
    ops: types.ModuleType = np,
    *,
    fft: bool = True,
) -> Array:
    """Waveforms in, waveforms out: STFT, model, masks, inverse STFT.

    Args:
        waveforms: float32 `[batch, num_samples]`, in [-1, 1].
        separate: Takes the features of the mixtures (see `features`) and returns the sources, float32
            `[batch, num_sources, num_frames / frame_pooling, num_bins]`.
        config: The spectrogram's settings.
        ops: `numpy` or `keras.ops`.
        fft: As in `stft`.

    Returns:
        float32 `[batch, num_sources, num_samples]`; their sum is the mixture.
    """
    real, imaginary = stft(waveforms, config, ops, fft=fft)
    sources = separate(features(real, imaginary, config, ops))
    return apply_masks(real, imaginary, source_masks(sources, config, ops), config, ops, fft=fft)


def _pooled_magnitude(real: Array, imaginary: Array, config: AudioConfig, ops: types.ModuleType) -> Array:
    magnitude = ops.sqrt(ops.square(real) + ops.square(imaginary))[:, :, : config.num_bins]
    if config.frame_pooling == 1:
        return magnitude
    pooled = (-1, config.num_frames // config.frame_pooling, config.frame_pooling, config.num_bins)
    return ops.mean(ops.reshape(magnitude, pooled), axis=2)


def _window(n_fft: int) -> npt.NDArray[np.float64]:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)


def _angles(n_fft: int) -> npt.NDArray[np.float64]:
    # The product of sample and bin is reduced modulo n_fft first: exact angles, no loss for large products.
    products = np.outer(np.arange(n_fft), np.arange(n_fft // 2 + 1)) % n_fft
    return 2 * np.pi * products / n_fft


@functools.cache
def _dft_matrices(n_fft: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    window, angles = _window(n_fft)[:, None], _angles(n_fft)
    return (window * np.cos(angles)).astype(np.float32), (-window * np.sin(angles)).astype(np.float32)


@functools.cache
def _inverse_dft_matrices(n_fft: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    window, angles = _window(n_fft)[None, :], _angles(n_fft).T
    weights = np.full((n_fft // 2 + 1, 1), 2 / n_fft)
    weights[[0, -1]] = 1 / n_fft
    return (
        (weights * window * np.cos(angles)).astype(np.float32),
        (-weights * window * np.sin(angles)).astype(np.float32),
    )


@functools.cache
def _inverse_window_sum(config: AudioConfig) -> npt.NDArray[np.float32]:
    total = np.zeros((config.num_frames - 1) * config.hop_length + config.n_fft)
    for frame in range(config.num_frames):
        start = frame * config.hop_length
        total[start : start + config.n_fft] += _window(config.n_fft) ** 2
    before = config.n_fft // 2
    return (1 / total[before : before + config.num_samples]).astype(np.float32)
