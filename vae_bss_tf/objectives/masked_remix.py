"""The mask network's objective: the masked sources of remixed mixtures, taught by a frozen teacher."""

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import tensorflow as tf

from vae_bss_tf.domains.base import Domain, RemixedMixtures
from vae_bss_tf.objectives import remixing
from vae_bss_tf.objectives.base import Noise, Values
from vae_bss_tf.objectives.remixed_elbo import separated_by_values

if TYPE_CHECKING:
    from vae_bss_tf.model import MultiSourceVAE

_LEAST_ESTIMATE = 1e-30
_VALIDATION_STEP = 0


@dataclasses.dataclass(frozen=True)
class MaskedRemix:
    """How well a model separates mixtures made of sources that a frozen teacher separated.

    Each step has the teacher separate its batch, exchanges sources between neighbouring mixtures, and separates those
    new mixtures, whose sources are known. The loss is the negative score of the masked sources in the best order: for
    images their log likelihood in nats, for sound their signal-to-distortion ratio in dB. Encoder and decoder are taken
    as they are; the mask network is what learns. No clean source is seen, and since the teacher stands still, no error
    feeds on itself. The reported `score` is the negative loss.

    Args:
        teacher: Separates the mixtures that are remixed; a model of its own, which does not change.
        domain: What the mixtures are.
        silence: Share of a mixture's energy, in [0, 1), below which a separated source is taken for silence.
        noise: Where the draws of what is exchanged come from.
        origin: Where the sources of a remixed mixture are from, as `remixing.remixed` takes it.

    Example:
        >>> from vae_bss_tf.domains import domain_of
        >>> model = MultiSourceVAE.from_preset("digits", mask_channels=(4, 8))
        >>> objective = MaskedRemix(teacher=model.copy(), domain=domain_of(None))
        >>> loss, values = objective(model, tf.random.uniform([4, 8, 8]), tf.constant(0))
        >>> sorted(values)
        ['score']
    """

    teacher: "MultiSourceVAE"
    domain: Domain
    silence: float = 0.0
    noise: Noise = dataclasses.field(default_factory=Noise)
    origin: str = "neighbours"

    metrics: ClassVar[tuple[str, ...]] = ("score",)
    monitor: ClassVar[str] = "score"

    def __call__(self, model: "MultiSourceVAE", mixture: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, Values]:
        """The loss of a training step; see `Objective`."""
        score = self._score(model, self._remixed(mixture, step))
        return -tf.reduce_mean(score), {"score": score}

    def _remixed(self, mixture: tf.Tensor, step: tf.Tensor) -> RemixedMixtures:
        if self.teacher.mask_network is None:
            sources = separated_by_values(self.teacher, mixture)
        else:
            sources = self.teacher(mixture)["sources"]
        return remixing.remixed(self.domain, sources, mixture, self.noise.remix(step), self.silence, self.origin)

    def _score(self, model: "MultiSourceVAE", mixed: RemixedMixtures) -> tf.Tensor:
        config = model.config
        estimates = model.decode(model.encode(mixed.mixture)[0])
        assert model.mask_network is not None
        rescaled = model.mask_network(mixed.mixture, estimates)
        # Masks do not change with the scale, and powers of small values have no gradient.
        largest = tf.stop_gradient(tf.reduce_max(rescaled, axis=1, keepdims=True))
        shared = tf.pow(rescaled / tf.maximum(largest, _LEAST_ESTIMATE), config.mask_exponent)
        fits = remixing.log_likelihood(config.likelihood, config.likelihood_scale, estimates, mixed.sources)
        return remixing.best_order(self.domain.mask_score(fits, shared, mixed))

    def validate(self, model: "MultiSourceVAE", mixture: tf.Tensor) -> Values:
        """The score on held-out mixtures, remixed in one fixed way."""
        return {"score": self._score(model, self._remixed(mixture, tf.constant(_VALIDATION_STEP)))}
