"""The table of systems on mixtures whose true sources nobody knows, and the column of it that every table has."""

from collections.abc import Sequence

from training.evaluation.judging import Result
from training.evaluation.statistics import Summary, summarise
from vae_bss_tf.metrics.consistency import LEAST_SHARE, LIMIT_DB

NAME, HEADING = "remix_si_sdri", "remix SI-SDRi"
NOTE = (
    f"'{HEADING}' needs no truth: by how many dB, within +-{LIMIT_DB:g}, a system improves the SI-SDR of mixtures of "
    "its own outputs; 0 where nothing is separated. It compares models of one kind and is no estimate of the SI-SDR."
)
NOTES = (
    f"The true sources of these mixtures are not known, so there are no scores against them. {NOTE} 'shared out': "
    "share of the mixtures in which each of the K largest outputs holds at least "
    f"{100 * LEAST_SHARE:g} % of the energy. 'shares': mean share of each output in the energy, the largest first. "
    "'sum SI-SDR': the sum of the estimates before they are masked, against the mixture. 'ELBO' and 'KL' are in nats, "
    "the KL of each source, that of the largest first."
)


def summary(result: Result) -> Summary | None:
    """The score that needs no truth, over pairs of mixtures; None where a result has none."""
    found = result.without_truth
    return None if found is None else summarise(found.remix_si_sdri)


def cell(result: Result) -> str:
    """The score that needs no truth with half its 95 % interval, for a table."""
    found = summary(result)
    return "" if found is None else f"{found.mean:.2f} ± {(found.high - found.low) / 2:.2f}"


def table(results: Sequence[Result]) -> list[list[str]]:
    """What is known of each system, as rows of text.

    Args:
        results: The systems' results.

    Returns:
        A heading, then a row for each system.
    """
    heading = [HEADING, "shared out", "shares", "sum SI-SDR", "ELBO", "KL", "ms/mixture", "fitted on", "in s"]
    rows = [["system", *heading, "parameters"]]
    for result in results:
        found, budget = result.without_truth, result.budget
        fit = None if found is None else found.fit
        rows.append(
            [
                result.system.title,
                cell(result),
                "" if found is None else f"{found.shared_out:.3f}",
                "" if found is None else " / ".join(f"{share:.3f}" for share in found.shares),
                "" if fit is None else f"{fit.sum_si_sdr:.2f}",
                "" if fit is None else f"{fit.elbo:.1f}",
                "" if fit is None else " / ".join(f"{nats:.1f}" for nats in fit.kl),
                f"{1000 * result.seconds_per_mixture:.3g}",
                f"{budget['mixtures']:,}" if budget else "",
                f"{budget['seconds']:.0f}" if budget else "",
                f"{budget['parameters']:,}" if budget else "",
            ]
        )
    return rows
