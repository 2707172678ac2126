"""Remixing of sound: how spectrograms of separated sources add up, and how masked ones are scored."""

import math
from typing import NamedTuple

import keras
import tensorflow as tf

from vae_bss_tf.audio import spectrogram
from vae_bss_tf.config import AudioConfig
from vae_bss_tf.masking import ratio_mask, ratio_shares

MASKED_SOUND_SCALE = 0.05

_LEAST_DISTORTION = 1e-3  # 30 dB: what is better need not become better still
_LEAST_EXPLAINED = 1e-6  # 60 dB either way
_SILENT_SHARE = 1e-3  # of all sources' energy, which a silent one's distortion is relative to


def source_magnitudes(sources: tf.Tensor, mixture: tf.Tensor, audio: AudioConfig) -> tf.Tensor:
    """Magnitudes of sources of sound as the mask on the mixture's STFT gives them.

    Args:
        sources: float32 `[batch, num_sources, frames, bins]`, compressed, in [0, 1].
        mixture: float32 `[batch, frames, bins]`, compressed, in [0, 1].
        audio: The spectrogram's settings.

    Returns:
        float32 `[batch, num_sources, frames, bins]`; their sum is the mixture's magnitude.
    """
    magnitudes = spectrogram.expand(sources, audio, keras.ops)
    return ratio_mask(magnitudes, spectrogram.expand(mixture, audio, keras.ops))


class SoundMixtures(NamedTuple):
    """Mixtures of known sources of sound, on a scale on which each mixture's largest magnitude is 1.

    The last three say all that is needed of the STFTs, of which a frame here pools several: the mean squared error of
    the mixture's, X, times a mask M, against a source's, S, is `M^2 power - 2 M correlation + |S|^2`.

    Attributes:
        mixture: float32 `[batch, frames, bins]`, pooled and compressed, as a model sees it.
        sources: float32 `[batch, num_sources, frames, bins]`, pooled and compressed, at most 1.
        power: float32 `[batch, frames, bins]`, the mean of |X|^2 over the pooled frames.
        correlations: float32 `[batch, num_sources, frames, bins]`, the mean of Re(X S*) over them.
        energies: float32 `[batch, num_sources]`, |S|^2 summed over frames and bins.
    """

    mixture: tf.Tensor
    sources: tf.Tensor
    power: tf.Tensor
    correlations: tf.Tensor
    energies: tf.Tensor


def mix_sound(magnitudes: tf.Tensor, noise: tf.Tensor, audio: AudioConfig) -> SoundMixtures:
    """Mixes sources of sound: their STFTs add, each bin at a random phase that drifts with time.

    The phases of independent sources are independent. From frame to frame they drift apart by a difference of
    frequency, whose standard deviation is a bin: what partials that share a bin differ by. So they beat, and pooled
    frames interfere as deeply as those of real mixtures.

    Args:
        magnitudes: float32 `[batch, num_sources, frames, bins]`, >= 0, of pooled frames.
        noise: float32 `[batch, num_sources - 1, bins, 2]`, standard normal: of the phases (times 2 pi and modulo 2 pi
            it is uniform to 1e-8) and of the differences of frequency, in bins.
        audio: The spectrogram's settings.

    Returns:
        The mixtures.
    """
    frames = tf.range(magnitudes.shape[2] * audio.frame_pooling, dtype=tf.float32)
    frames = tf.reshape(frames, [-1, audio.frame_pooling, 1])
    phases, drifts = tf.unstack(2 * math.pi * noise[:, :, tf.newaxis, tf.newaxis], axis=-1)
    phases += frames * drifts * audio.hop_length / audio.n_fft
    phases = tf.pad(phases, [[0, 0], [1, 0], [0, 0], [0, 0], [0, 0]])  # the first source's is 0
    real = magnitudes[:, :, :, tf.newaxis] * tf.cos(phases)
    imaginary = magnitudes[:, :, :, tf.newaxis] * tf.sin(phases)
    mixed_real, mixed_imaginary = (tf.reduce_sum(part, axis=1, keepdims=True) for part in (real, imaginary))
    power = tf.square(mixed_real) + tf.square(mixed_imaginary)
    mixture = tf.reduce_mean(tf.sqrt(power), axis=(1, 3))
    scale = tf.maximum(tf.reduce_max(mixture, axis=(1, 2), keepdims=True), spectrogram.SILENCE)
    correlations = tf.reduce_mean(mixed_real * real + mixed_imaginary * imaginary, axis=3)
    sources = magnitudes / scale[:, tf.newaxis]
    return SoundMixtures(
        mixture=spectrogram.compress(mixture / scale, audio, keras.ops),
        sources=spectrogram.compress(tf.minimum(sources, 1.0), audio, keras.ops),
        power=tf.reduce_mean(power, axis=(1, 3)) / tf.square(scale),
        correlations=correlations / tf.square(scale[:, tf.newaxis]),
        energies=tf.reduce_sum(tf.square(sources), axis=(2, 3)),
    )


def masked_sound_log_likelihood(estimates: tf.Tensor, mixed: SoundMixtures, audio: AudioConfig) -> tf.Tensor:
    """Log likelihood of each of the known sources of sound under each of a model's masked estimates (VAEM).

    The distribution is a complex Normal around them, of standard deviation `MASKED_SOUND_SCALE` in real and imaginary
    part, where a mixture's largest magnitude is 1.

    Args:
        estimates: As `masked_sound_errors` takes them.
        mixed: What the estimates are of.
        audio: The spectrogram's settings.

    Returns:
        As `log_likelihood`, up to a constant, and the mean over the frames that are pooled in one.
    """
    return -masked_sound_errors(estimates, mixed, audio) / (2 * MASKED_SOUND_SCALE**2)


def masked_sound_sdr(estimates: tf.Tensor, mixed: SoundMixtures, audio: AudioConfig) -> tf.Tensor:
    """Signal-to-distortion ratio of each of a model's masked estimates against each of the known sources of sound.

    Each mixture counts alike, however well it is separated; by a likelihood of one scale the worst ones count most.

    Args:
        estimates: As `masked_sound_errors` takes them.
        mixed: What the estimates are of.
        audio: The spectrogram's settings.

    Returns:
        float32 `[batch, num_sources (estimates), num_sources (sources)]`, dB, at most 30.
    """
    silent = _SILENT_SHARE * tf.reduce_sum(mixed.energies, axis=1, keepdims=True) + spectrogram.SILENCE
    relative = masked_sound_errors(estimates, mixed, audio) / tf.maximum(mixed.energies, silent)[:, tf.newaxis]
    return -10 / math.log(10) * tf.math.log(tf.maximum(relative, 0.0) + _LEAST_DISTORTION)


def masked_sound_errors(estimates: tf.Tensor, mixed: SoundMixtures, audio: AudioConfig) -> tf.Tensor:
    """Squared error of each of a model's masked estimates (VAEM) against each of the known sources of sound.

    The mask is that of `spectrogram.source_masks`, on the mixture's STFT. So, but for overlapping frames, it is the
    squared error of waveforms, which SI-SDR judges by.

    Args:
        estimates: float32 `[batch, num_sources, frames, bins]`, compressed, > 0, such as a model's plus `MASK_FLOOR`;
            to the power of an exponent that its mask has.
        mixed: What the estimates are of.
        audio: The spectrogram's settings.

    Returns:
        float32 `[batch, num_sources (estimates), num_sources (sources)]`, summed over frames and bins, the mean over
        the frames that are pooled in one; >= 0 but for rounding.
    """
    of_masks, of_both = _masked_products(estimates, mixed, audio)
    return of_masks[:, :, tf.newaxis] - 2 * of_both + mixed.energies[:, tf.newaxis]


def masked_sound_si_sdr(separated: tf.Tensor, mixed: SoundMixtures, audio: AudioConfig) -> tf.Tensor:
    """Scale-invariant signal-to-distortion ratio of each masked output as each of the known sources of sound.

    Args:
        separated: float32 `[batch, num_outputs, frames, bins]`, compressed, in [0, 1]: a model's sources.
        mixed: What they are of.
        audio: The spectrogram's settings.

    Returns:
        float32 `[batch, num_outputs, num_sources (known)]`, dB, within +-60.
    """
    of_masks, of_both = _masked_products(separated, mixed, audio)
    largest = of_masks[:, :, tf.newaxis] * mixed.energies[:, tf.newaxis]
    explained = tf.square(of_both) / tf.maximum(largest, spectrogram.SILENCE**2)
    explained = tf.clip_by_value(explained, _LEAST_EXPLAINED, 1 - _LEAST_EXPLAINED)
    return 10 / math.log(10) * (tf.math.log(explained) - tf.math.log1p(-explained))


def _masked_products(estimates: tf.Tensor, mixed: SoundMixtures, audio: AudioConfig) -> tuple[tf.Tensor, tf.Tensor]:
    """Energy of each masked estimate, `[batch, num_estimates]`, and its inner product with each source."""
    masks = ratio_shares(spectrogram.expand(estimates, audio, keras.ops))
    of_masks = tf.reduce_sum(tf.square(masks) * mixed.power[:, tf.newaxis], axis=(2, 3))
    return of_masks, tf.einsum("befn,bsfn->bes", masks, mixed.correlations)
