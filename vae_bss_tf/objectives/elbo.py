"""The paper's objective: the evidence lower bound of the mixtures."""

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import tensorflow as tf

from vae_bss_tf.nn.sampling import sample_latents
from vae_bss_tf.objectives import distributions
from vae_bss_tf.objectives.base import Noise, Schedule, Values

if TYPE_CHECKING:
    from vae_bss_tf.model import MultiSourceVAE


@dataclasses.dataclass(frozen=True)
class Elbo:
    """The negative ELBO of mixtures, `-E_q[ln p(x|Z)] + beta * KL(q(Z|x) || p(Z))`.

    It is equation 5 of the paper, with one sample of Z.

    It reports `log_likelihood`, `kl`, and `elbo`, the ELBO with the KL weighted by `final_beta`, which does not change
    as beta does. For an autoencoder (`ModelConfig.variational` is False) the latent is the posterior mean and the KL 0.

    Args:
        beta: The KL weight, >= 0, as a function of the step in the phase.
        final_beta: Weight of the KL in the reported `elbo`; >= 0.
        noise: Where the latents' noise comes from.

    Example:
        >>> import numpy as np
        >>> from vae_bss_tf import MultiSourceVAE
        >>> model = MultiSourceVAE.from_preset("digits")
        >>> loss, values = Elbo()(model, tf.zeros([4, 8, 8]), tf.constant(0))
        >>> sorted(values)
        ['elbo', 'kl', 'log_likelihood']
    """

    beta: Schedule = lambda step: tf.constant(1.0)
    final_beta: float = 1.0
    noise: Noise = dataclasses.field(default_factory=Noise)

    metrics: ClassVar[tuple[str, ...]] = ("log_likelihood", "kl", "elbo")
    monitor: ClassVar[str] = "elbo"

    def __call__(self, model: "MultiSourceVAE", mixture: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, Values]:
        """The loss of a training step; see `Objective`."""
        estimates, kl = self.sampled(model, mixture, step)
        values = self.values(model, mixture, estimates, kl)
        return tf.reduce_mean(self.beta(step) * kl - values["log_likelihood"]), values

    def sampled(self, model: "MultiSourceVAE", mixture: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Encodes mixtures and decodes a sample of their latents, as in training.

        Args:
            model: The model.
            mixture: float32 `[batch, *input_shape]`.
            step: int32 scalar, the step in the phase.

        Returns:
            Estimates, float32 `[batch, num_sources, *input_shape]`, and the KL, float32 `[batch]`, nats.
        """
        mean, log_variance = model.encode(mixture, training=True)
        latents = mean
        if model.config.variational:
            latents = sample_latents(mean, log_variance, self.noise.latents(step))
        return model.decode(latents, training=True), _kl(model, mean, log_variance)

    def values(self, model: "MultiSourceVAE", mixture: tf.Tensor, estimates: tf.Tensor, kl: tf.Tensor) -> Values:
        """The metrics of mixtures and what the model made of them: float32 `[batch]` each, nats."""
        config = model.config
        estimate = tf.reduce_sum(estimates, axis=1)
        rank = len(config.input_shape)
        likelihood = distributions.mixture_likelihood(config.likelihood, estimate, config.likelihood_scale, rank)
        log_likelihood = likelihood.log_prob(mixture)
        return {"log_likelihood": log_likelihood, "kl": kl, "elbo": log_likelihood - self.final_beta * kl}

    def validate(self, model: "MultiSourceVAE", mixture: tf.Tensor) -> Values:
        """The metrics with the latents at the posterior mean."""
        mean, log_variance = model.encode(mixture)
        return self.values(model, mixture, model.decode(mean), _kl(model, mean, log_variance))


def _kl(model: "MultiSourceVAE", mean: tf.Tensor, log_variance: tf.Tensor) -> tf.Tensor:
    if not model.config.variational:
        return tf.zeros(tf.shape(mean)[:1])
    return distributions.kl_divergence(mean, log_variance, model.config.prior)
