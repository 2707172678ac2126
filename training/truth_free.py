"""What can be known of a separation whose true sources nobody knows."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from vae_bss_tf import metrics
from vae_bss_tf.config import Preset
from vae_bss_tf.datasets.image_mixtures import EvaluationSet
from vae_bss_tf.domains import Domain, domain_of
from vae_bss_tf.metrics.consistency import remix_consistency
from vae_bss_tf.metrics.ratios import Float64

Float32 = npt.NDArray[np.float32]
Separate = Callable[[Float32], Float32]

NUM_REMIXED = 500  # of the mixtures, the first ones
_POSTERIOR = ("latent_mean", "latent_log_variance")


@dataclasses.dataclass(frozen=True)
class MixtureFit:
    """How well a model explains mixtures: what it was trained for.

    Attributes:
        elbo: The ELBO with the posterior mean for the latents and the KL weight that the training ends with, nats.
        kl: KL of each source's posterior from its prior, the source of most energy first, nats.
        sum_si_sdr: SI-SDR of the sum of the estimates before they are masked, against the mixture, dB.
    """

    elbo: float
    kl: tuple[float, ...]
    sum_si_sdr: float


@dataclasses.dataclass(frozen=True)
class TruthFree:
    """What can be known of a separation without true sources.

    Attributes:
        remix_si_sdri: float64 `[num_pairs]`, how well mixtures of the separator's own outputs are separated:
            improvement of SI-SDR, dB; see `metrics.consistency`.
        shared_out: Share of the mixtures, in [0, 1], that are shared out among as many outputs as they hold sources.
        shares: Mean share of each output in a mixture's energy, the largest first.
        fit: How well a variational model explains the mixtures; None for other systems.
    """

    remix_si_sdri: Float64
    shared_out: float
    shares: tuple[float, ...]
    fit: MixtureFit | None = None

    def values(self) -> dict[str, Any]:
        """The means as JSON can hold them; what is not known is left out."""
        fit = {} if self.fit is None else {**dataclasses.asdict(self.fit), "kl": list(self.fit.kl)}
        return {
            "remix_si_sdri": float(self.remix_si_sdri.mean()),
            "shared_out": self.shared_out,
            "shares": list(self.shares),
            **fit,
        }


def sources_of(preset: Preset, *, has_truth: bool) -> int:
    """How many sources a mixture is taken to hold: as many as are mixed or, where nobody knows, the model's K.

    Args:
        preset: The settings.
        has_truth: Whether mixtures are made of known sources.

    Returns:
        The number, at least 2: one source is not separated from anything.
    """
    return max(2, preset.data.max_mixed if has_truth else preset.model.num_sources)


def remix_si_sdri(separate: Separate, mixtures: Float32, domain: Domain, num_mixed: int) -> float:
    """The score that needs no truth, by which a training chooses its model: SI-SDRi in dB; see `metrics.consistency`.

    Args:
        separate: float32 `[n, *shape]` to float32 `[n, num_sources, *shape]`.
        mixtures: float32 `[num_mixtures, *shape]`, of which the first `NUM_REMIXED` are remixed; at least 2.
        domain: What they are.
        num_mixed: How many sources a mixture holds, at least 2.

    Returns:
        The mean over the mixtures.
    """
    return float(remix_consistency(separate, mixtures[:NUM_REMIXED], domain, num_mixed).scores.mean())


def known(
    system: str,
    separate: Separate,
    outputs: Float32,
    mixed: EvaluationSet,
    num_mixed: int,
    fit: MixtureFit | None = None,
) -> TruthFree | None:
    """Measures what can be known of a separation without true sources.

    Where mixtures are made of different numbers of sources, those of the largest number are remixed.

    Args:
        system: What separates, as `domain.judged` takes it.
        separate: float32 `[n, *shape]` to float32 `[n, num_sources, *shape]`.
        outputs: float32 `[num_mixtures, num_sources, *shape]`, what it makes of all mixtures.
        mixed: The mixtures, of which the first `NUM_REMIXED` are remixed. True sources are not used.
        num_mixed: How many sources a mixture holds, at least 2.
        fit: As in `TruthFree`.

    Returns:
        What is known; None where there are fewer than two mixtures to remix.
    """
    remixed = mixed.mixtures[mixed.counts == mixed.counts.max()][:NUM_REMIXED]
    if len(remixed) < 2:
        return None
    domain = domain_of(mixed.audio)
    found = remix_consistency(separate, remixed, domain, num_mixed)
    shares = np.sort(metrics.output_shares(domain.judged(system, outputs, mixed)[0]), axis=1)[:, ::-1]
    return TruthFree(found.scores, float(found.shared_out.mean()), tuple(shares.mean(axis=0).tolist()), fit)


def mixture_fit(model: Any, outputs: dict[str, Float32], mixed: EvaluationSet, kl_weight: float) -> MixtureFit | None:
    """Measures how well a model explains mixtures.

    Args:
        model: The model.
        outputs: What it makes of the mixtures, by name, as `MultiSourceVAE` gives it.
        mixed: The mixtures.
        kl_weight: Weight of the KL in the ELBO: the one that the training ends with.

    Returns:
        The means over the mixtures; None for a model without a posterior.
    """
    import tensorflow as tf

    from vae_bss_tf.objectives import Elbo, distributions

    config = model.config
    if not config.variational:
        return None
    # Each source of each mixture alone, so that the KL is not summed over the sources.
    mean, log_variance = (tf.reshape(outputs[name], [-1, 1, config.latent_dim]) for name in _POSTERIOR)
    kl = distributions.kl_divergence(mean, log_variance, config.prior)
    kl = np.asarray(kl).reshape(-1, config.num_sources)
    values = Elbo(final_beta=kl_weight).values(model, mixed.mixtures, outputs["estimates"], kl.sum(axis=1))
    order = np.argsort(-metrics.output_shares(outputs["sources"]), axis=1)
    estimates, truth = domain_of(mixed.audio).judged("vae", outputs["estimates"], mixed)
    sums = [signals.sum(axis=1, keepdims=True) for signals in (estimates, truth)]
    return MixtureFit(
        elbo=float(np.mean(values["elbo"])),
        kl=tuple(np.take_along_axis(kl, order, axis=1).mean(axis=0).tolist()),
        sum_si_sdr=float(metrics.si_bss_eval(*sums).sdr.mean()),
    )


def described(values: dict[str, Any]) -> list[str]:
    """Says in plain lines what is known.

    Args:
        values: As `TruthFree.values` gives them.

    Returns:
        The lines.
    """
    if not values:
        return []
    lines = [
        f"separating remixes of its own sources: SI-SDRi {values['remix_si_sdri']:.2f} dB (nothing separated: 0), "
        f"{100 * values['shared_out']:.0f} % of the mixtures shared out",
        f"shares of the energy, largest first: {', '.join(f'{100 * share:.0f} %' for share in values['shares'])}",
    ]
    if "elbo" in values:
        kl = ", ".join(f"{nats:.1f}" for nats in values["kl"])
        lines += [
            f"sum of the estimates against the mixture: SI-SDR {values['sum_si_sdr']:.2f} dB",
            f"ELBO {values['elbo']:.1f} nats; KL of the sources, largest first: {kl} nats",
        ]
    return lines
