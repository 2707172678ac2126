"""What a live separator is trained to do: the paper's ELBO on mixtures, and the sources that its teacher found."""

import itertools
import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from vae_bss_tf.live.config import N_FFT
from vae_bss_tf.live.model import LiveVAE
from vae_bss_tf.nn.sampling import sample_latents
from vae_bss_tf.objectives import distributions

ELBO_WEIGHT = 0.01  # dB for a nat a frame
KL_WEIGHT = 1.0
_LEAST_DISTORTION = 1e-3  # 30 dB: what is better need not become better still
_SILENT_SHARE = 1e-3  # of the mixture's energy, which a silent source's distortion is relative to


class Values(NamedTuple):
    """What one batch gives, each float32 `[batch]`.

    Attributes:
        sdr: Signal-to-distortion ratio of the masked sources, mean over the sources, dB.
        elbo: The ELBO of the mixtures, nats a frame.
        kl: The KL divergence of posterior and prior, nats a frame.
        known: Log likelihood of the known sources under the estimates, nats a frame.
    """

    sdr: tf.Tensor
    elbo: tf.Tensor
    kl: tf.Tensor
    known: tf.Tensor

    def loss(self) -> tf.Tensor:
        """The loss of a step: float32, a scalar, in dB."""
        bound = self.elbo + self.known + (1 - KL_WEIGHT) * self.kl
        return -tf.reduce_mean(self.sdr + ELBO_WEIGHT * bound)


def values(model: LiveVAE, sources: tf.Tensor, sure: tf.Tensor, noise: tf.Tensor | None) -> Values:
    """Judges a model on mixtures of known sources.

    Outputs stand for the sources in the order in which these are given; only where it is not sure, the best one counts.

    Args:
        model: The model.
        sources: float32 `[batch, num_sources, samples]`, whole blocks.
        sure: bool `[batch]`, whether their order counts.
        noise: Seed of the latents' noise, int32 `[2]`; None takes the posterior mean.

    Returns:
        The values.
    """
    config, frames = model.config, sources.shape[2] // model.config.hop_length
    count = config.num_sources
    real, imaginary = spectra(model, sources)
    bands = model.bands(tf.reduce_sum(real, axis=1), tf.reduce_sum(imaginary, axis=1))
    scale = model.scale(bands)
    features = model.compress(bands, scale)
    beginning = {
        name: tf.zeros([tf.shape(sources)[0], *array.shape[1:]]) for name, array in model.initial_state().items()
    }
    mean, log_variance, heard, _ = model.encode(features, scale, beginning)
    masks = model.masks(mean, model.decode(mean), heard)
    mean, log_variance = (tf.reshape(moment, [-1, count, config.latent_dim]) for moment in (mean, log_variance))
    latents = mean if noise is None else sample_latents(mean, log_variance, noise)
    estimates = model.decode(tf.reshape(latents, [-1, frames, count, config.latent_dim]))
    estimates = tf.transpose(estimates, [0, 2, 1, 3])
    likelihood = distributions.mixture_likelihood("normal", tf.reduce_sum(estimates, axis=1), config.likelihood_scale)
    kl = distributions.kl_divergence(mean, log_variance, "normal")
    kl = tf.reduce_mean(tf.reshape(kl, [-1, frames]), axis=1)
    known = model.compress(model.bands(real, imaginary), scale[:, tf.newaxis])
    of_sources = distributions.mixture_likelihood("normal", estimates[:, :, tf.newaxis], config.likelihood_scale)
    ratios, fits = in_order(
        ratios_of(model, masks, real, imaginary), of_sources.log_prob(known[:, tf.newaxis]) / frames, sure
    )
    return Values(ratios / count, likelihood.log_prob(features) / frames - kl, kl, fits)


def spectra(model: LiveVAE, sources: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Spectra of sources as the model hears them, by the fast transform.

    Args:
        model: The model.
        sources: float32 `[batch, num_sources, samples]`, whole blocks.

    Returns:
        The real and the imaginary part, each float32 `[batch, num_sources, frames, 513]`.
    """
    hop = model.config.hop_length
    padded = tf.pad(sources, [[0, 0], [0, 0], [N_FFT - hop, 0]])
    spectra = tf.signal.rfft(tf.signal.frame(padded, N_FFT, hop) * model.analysis)
    return tf.math.real(spectra), tf.math.imag(spectra)


def ratios_of(model: LiveVAE, masks: tf.Tensor, real: tf.Tensor, imaginary: tf.Tensor) -> tf.Tensor:
    """Signal-to-distortion ratio of each masked mixture as each source.

    With a mask M of bands, a mixture X and a source S, the squared error is `M^2 |X|^2 - 2 M Re(X S*) + |S|^2`, of
    which the products are summed over each band's bins.

    Args:
        model: The model.
        masks: float32 `[batch, outputs, frames, num_bands]`, in [0, 1].
        real: Of the sources, as `spectra` gives it.
        imaginary: The same.

    Returns:
        float32 `[batch, outputs, sources]`, dB, at most 30.
    """
    mixed_real, mixed_imaginary = (tf.reduce_sum(part, axis=1, keepdims=True) for part in (real, imaginary))
    energies = tf.reduce_sum(tf.square(real) + tf.square(imaginary), axis=[2, 3])
    power = _band_sums(model, tf.square(mixed_real) + tf.square(mixed_imaginary))
    correlations = _band_sums(model, mixed_real * real + mixed_imaginary * imaginary)
    of_masks = tf.reduce_sum(tf.square(masks) * power, axis=[2, 3])
    of_both = tf.reduce_sum(masks[:, :, tf.newaxis] * correlations[:, tf.newaxis], axis=[3, 4])
    errors = of_masks[:, :, tf.newaxis] - 2 * of_both + energies[:, tf.newaxis]
    silent = _SILENT_SHARE * tf.reduce_sum(energies, axis=1, keepdims=True) + 1e-12
    relative = tf.maximum(errors, 0.0) / tf.maximum(energies, silent)[:, tf.newaxis]
    return -10 / math.log(10) * tf.math.log(relative + _LEAST_DISTORTION)


def _band_sums(model: LiveVAE, values: tf.Tensor) -> tf.Tensor:
    """Sums over the bins of each band, `[..., 513]` to `[..., num_bands]`, by what `LiveVAE.spread` repeats."""
    low, per_band = model.config.low_bins, model.config.bins_per_band
    upper = values[..., low:-1]
    upper = tf.reduce_sum(tf.reshape(upper, [*tf.unstack(tf.shape(upper)[:-1]), -1, per_band]), axis=-1)
    last = upper[..., -1:] + values[..., -1:]
    return tf.concat([values[..., :low], upper[..., :-1], last], axis=-1)


def in_order(ratios: tf.Tensor, fits: tf.Tensor, sure: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Sums over the outputs in the given order of the sources, or in the best.

    Args:
        ratios: float32 `[batch, outputs, sources]`.
        fits: The same shape.
        sure: bool `[batch]`, whether the given order counts; else the one of the largest sum of `ratios` does.

    Returns:
        Both sums, each float32 `[batch]`.
    """
    count = ratios.shape[1]
    orders = np.asarray(list(itertools.permutations(range(count))))  # the first is the given one
    ratios, fits = (
        tf.reduce_sum(
            tf.gather(pairs, orders, axis=2, batch_dims=0) * np.eye(count, dtype=np.float32)[:, None], axis=[1, 3]
        )
        for pairs in (ratios, fits)
    )
    best = tf.where(sure, tf.zeros_like(tf.argmax(ratios, axis=1)), tf.argmax(ratios, axis=1))
    return tf.gather(ratios, best, batch_dims=1), tf.gather(fits, best, batch_dims=1)
