"""The protocol of a domain: what a mixture is."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import tensorflow as tf

    from vae_bss_tf.datasets.bank import SourceBank
    from vae_bss_tf.datasets.image_mixtures import EvaluationSet

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


class RemixedMixtures(Protocol):
    """Mixtures of known sources.

    Attributes:
        mixture: float32 `[batch, *input_shape]`, as a model sees it.
        sources: float32 `[batch, num_sources, *input_shape]`, as a decoder should give them.
    """

    @property
    def mixture(self) -> "tf.Tensor":
        """float32 `[batch, *input_shape]`."""

    @property
    def sources(self) -> "tf.Tensor":
        """float32 `[batch, num_sources, *input_shape]`."""


class Domain(Protocol):
    """What a mixture is: how it is drawn, how its sources add up, and how separated ones are scored and drawn.

    It is the only place that asks whether something is sound.

    Attributes:
        kind: "images" or "sound", for messages.
        paired_score: The score by which systems are compared on the same mixtures.
    """

    kind: ClassVar[str]
    paired_score: ClassVar[str]

    def bank_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of one source in a bank, for a model that takes mixtures of `input_shape`."""

    def training_mixtures(
        self, bank: "SourceBank", *, num_mixed: Sequence[int], batch_size: int, seed: int, start_step: int
    ) -> "tf.data.Dataset":
        """Endless batches of mixtures; see `datasets.image_mixtures.training_mixtures`."""

    def evaluation_mixtures(
        self, bank: "SourceBank", *, num_mixed: Sequence[int], num_mixtures: int, seed: int, gain: float
    ) -> "EvaluationSet":
        """A fixed set of mixtures with their sources; see `datasets.image_mixtures.evaluation_mixtures`."""

    def exchangeable(self, sources: "tf.Tensor", mixture: "tf.Tensor") -> "tf.Tensor":
        """What of separated sources adds up when they are remixed: float32 `[batch, num_sources, ...]`."""

    def remix(self, sources: "tf.Tensor", seed: "tf.Tensor") -> RemixedMixtures:
        """Mixes sources, as `exchangeable` gives them; `seed` is int32 `[2]`."""

    def masked_log_likelihood(self, estimates: "tf.Tensor", mixed: Any) -> "tf.Tensor":
        """Log likelihood of each known source under each masked estimate.

        Args:
            estimates: float32 `[batch, num_sources, *input_shape]`, > 0, what the mixture is shared in proportion to.
            mixed: What `remix` returned.

        Returns:
            float32 `[batch, num_sources (estimates), num_sources (sources)]`, nats.
        """

    def mask_score(self, fits: "tf.Tensor", estimates: "tf.Tensor", mixed: Any) -> "tf.Tensor":
        """How well each masked estimate is each known source, which a mask network learns to raise.

        Args:
            fits: float32 `[batch, num_sources, num_sources]`, log likelihood of the sources under the estimates
                before a mask network rescaled them, nats.
            estimates: As `masked_log_likelihood` takes them.
            mixed: What `remix` returned.

        Returns:
            float32 `[batch, num_sources (estimates), num_sources (sources)]`, nats for images, dB for sound.
        """

    def remixed_si_sdr(self, separated: Float32, mixed: Any) -> Float64:
        """SI-SDR of each separated source as each of the known ones, for `metrics.consistency`.

        Args:
            separated: float32 `[batch, num_outputs, *input_shape]`, what a model makes of the mixtures.
            mixed: What `remix` returned.

        Returns:
            float64 `[batch, num_outputs, num_sources (known)]`, dB.
        """

    def judged(self, system: str, outputs: Float32, truth: "EvaluationSet") -> tuple[Float32, Float32]:
        """What the ratios SI-SDR, SI-SIR and SI-SAR are taken on.

        Args:
            system: What gave the outputs; those of "vae" and "ae" are not masked, all others are shares of the mixture.
                The oracles "ibm" and "irm" act on all that the mixture is, whatever the outputs.
            outputs: float32 `[num_mixtures, num_sources, *input_shape]`.
            truth: The mixtures and their true sources.

        Returns:
            The outputs, float32 `[num_mixtures, num_sources, ...]`, and the true sources, float32
            `[num_mixtures, max_mixed, ...]`.
        """

    def upright(self, pictures: Float32) -> Float32:
        """Turns `[..., *input_shape]` into pictures as a person reads them, `[..., height, width]`."""
