"""Images: sources that add up pixel by pixel."""

import dataclasses
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from vae_bss_tf.datasets import image_mixtures
from vae_bss_tf.datasets.image_mixtures import EvaluationSet
from vae_bss_tf.domains.base import Float32, Float64

if TYPE_CHECKING:
    import tensorflow as tf

MASKED_SCALE = 0.2  # standard deviation of a masked pixel around the true one


class RemixedImages(NamedTuple):
    """Images made of known sources.

    Attributes:
        mixture: float32 `[batch, *input_shape]` in [0, 1].
        sources: float32 `[batch, num_sources, *input_shape]`.
    """

    mixture: "tf.Tensor"
    sources: "tf.Tensor"


@dataclasses.dataclass(frozen=True)
class Images:
    """The domain of images; see `domains.base.Domain`.

    Example:
        >>> Images().bank_shape((28, 28))
        (28, 28)
    """

    kind: ClassVar[str] = "images"
    paired_score: ClassVar[str] = "psnr"

    def bank_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of one source in a bank: the mixture's own."""
        return input_shape

    training_mixtures = staticmethod(image_mixtures.training_mixtures)
    evaluation_mixtures = staticmethod(image_mixtures.evaluation_mixtures)

    def exchangeable(self, sources: "tf.Tensor", mixture: "tf.Tensor") -> "tf.Tensor":
        """The sources themselves: float32 `[batch, num_sources, *input_shape]`."""
        return sources

    def remix(self, sources: "tf.Tensor", seed: "tf.Tensor") -> RemixedImages:
        """Adds sources up, clipped to [0, 1]; `seed` is not used."""
        import tensorflow as tf

        return RemixedImages(tf.clip_by_value(tf.reduce_sum(sources, axis=1), 0.0, 1.0), sources)

    def masked_log_likelihood(self, estimates: "tf.Tensor", mixed: RemixedImages) -> "tf.Tensor":
        """Log likelihood of each known source under each masked estimate.

        The distribution is a Normal of standard deviation 0.2, whose logarithm is the squared error that PSNR and
        SI-SDR are made of.

        Args:
            estimates: float32 `[batch, num_sources, *input_shape]`, > 0.
            mixed: What `remix` returned.

        Returns:
            float32 `[batch, num_sources (estimates), num_sources (sources)]`, nats.
        """
        from vae_bss_tf.masking import ratio_mask
        from vae_bss_tf.objectives import remixing

        masked = ratio_mask(estimates, mixed.mixture)
        return remixing.log_likelihood("normal", MASKED_SCALE, masked, mixed.sources)

    def mask_score(self, fits: "tf.Tensor", estimates: "tf.Tensor", mixed: RemixedImages) -> "tf.Tensor":
        """The log likelihood of the sources under the estimates and under the masked estimates, in nats."""
        return fits + self.masked_log_likelihood(estimates, mixed)

    def remixed_si_sdr(self, separated: Float32, mixed: RemixedImages) -> Float64:
        """SI-SDR of the pictures, float64 `[batch, num_outputs, num_sources (known)]`, dB."""
        from vae_bss_tf import metrics

        return metrics.pairwise_si_bss_eval(separated, np.asarray(mixed.sources)).sdr

    def judged(self, system: str, outputs: Float32, truth: EvaluationSet) -> tuple[Float32, Float32]:
        """The pictures as they are."""
        return outputs, truth.sources

    def upright(self, pictures: Float32) -> Float32:
        """The pictures as they are."""
        return pictures
