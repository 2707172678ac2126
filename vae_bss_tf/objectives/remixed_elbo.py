"""The ELBO beside the loss of remixed mixtures, which teaches the encoder what belongs to one source."""

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import tensorflow as tf

from vae_bss_tf.domains.base import Domain
from vae_bss_tf.masking import ratio_mask
from vae_bss_tf.objectives import remixing
from vae_bss_tf.objectives.base import Values
from vae_bss_tf.objectives.elbo import Elbo

if TYPE_CHECKING:
    from vae_bss_tf.model import MultiSourceVAE


@dataclasses.dataclass(frozen=True)
class RemixedElbo:
    """The negative ELBO of mixtures, and of as many made of their own separated sources.

    Each step separates its batch by the posterior mean, exchanges sources between neighbouring mixtures, and adds
    `weight` times the loss of these new mixtures, with the likelihood of each known source in place of that of their
    sum. It sharpens sources that have separated; it does not separate them. Meant for K of 4 or less: all orders are
    tried. Batches are even.

    Args:
        elbo: The ELBO, with its KL weight and noise.
        domain: What the mixtures are.
        weight: Weight of the remixed mixtures' loss; > 0.
        silence: Share of a mixture's energy, in [0, 1), below which a separated source is taken for silence.
        masked: Whether the likelihood of the sources under the masked estimates is added.
        origin: Where the sources of a remixed mixture are from, as `remixing.remixed` takes it.
        by_mask_network: Whether the model's mask network, which is trained and does not change, sharpens the sources
            that are remixed, and `ModelConfig.mask_exponent` applies to them, as for a teacher of `MaskedRemix`.

    Example:
        >>> from vae_bss_tf.domains import domain_of
        >>> objective = RemixedElbo(Elbo(), domain_of(None))
        >>> loss, values = objective(MultiSourceVAE.from_preset("digits"), tf.zeros([4, 8, 8]), tf.constant(0))
        >>> loss.shape
        TensorShape([])
    """

    elbo: Elbo
    domain: Domain
    weight: float = 1.0
    silence: float = 0.0
    masked: bool = False
    origin: str = "neighbours"
    by_mask_network: bool = False

    metrics: ClassVar[tuple[str, ...]] = Elbo.metrics
    monitor: ClassVar[str] = Elbo.monitor

    def __call__(self, model: "MultiSourceVAE", mixture: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, Values]:
        """The loss of a training step; see `Objective`."""
        mixed = remixing.remixed(
            self.domain,
            model(mixture)["sources"] if self.by_mask_network else separated_by_values(model, mixture),
            mixture,
            self.elbo.noise.remix(step),
            self.silence,
            self.origin,
        )
        # Each mixture is followed by a remixed one, so that replicas that share a batch draw the noise that one would.
        both = tf.reshape(tf.stack([mixture, mixed.mixture], axis=1), [-1, *model.config.input_shape])
        estimates, kl = self.elbo.sampled(model, both, step)
        values = self.elbo.values(model, mixture, estimates[::2], kl[::2])
        config, remixed_estimates = model.config, estimates[1::2]
        fits = remixing.log_likelihood(config.likelihood, config.likelihood_scale, remixed_estimates, mixed.sources)
        if self.masked:
            fits += self.domain.masked_log_likelihood(remixed_estimates + remixing.MASK_FLOOR, mixed)
        beta = self.elbo.beta(step)
        loss = tf.reduce_mean(beta * kl[::2] - values["log_likelihood"])
        return loss + self.weight * tf.reduce_mean(beta * kl[1::2] - remixing.best_order(fits)), values

    def validate(self, model: "MultiSourceVAE", mixture: tf.Tensor) -> Values:
        """The metrics of the ELBO with the latents at the posterior mean."""
        return self.elbo.validate(model, mixture)


def separated_by_values(model: "MultiSourceVAE", mixture: tf.Tensor) -> tf.Tensor:
    """Separates mixtures by the posterior mean, shared by values whatever `ModelConfig.mask_exponent` is.

    What is taught by powers comes to share nothing.

    Args:
        model: The model; a mask network is not used.
        mixture: float32 `[batch, *input_shape]`.

    Returns:
        float32 `[batch, num_sources, *input_shape]`.
    """
    return ratio_mask(model.decode(model.encode(mixture)[0]), mixture)
