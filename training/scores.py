"""Mean scores of separated mixtures against their true sources."""

import numpy as np
import numpy.typing as npt

from vae_bss_tf import metrics
from vae_bss_tf.datasets.mixtures import EvaluationSet


def mean_scores(estimates: npt.NDArray[np.float32], truth: EvaluationSet) -> dict[str, float]:
    """Scores estimates matched to the true sources, averaged over all sources of all mixtures.

    Args:
        estimates: float32 `[num_mixtures, num_sources, *shape]`, all outputs of the model.
        truth: The mixtures' true sources, at most `num_sources` of them.

    Returns:
        "si_sdr" in dB; "psnr" in dB with the sources at full scale (peak 1) and "psnr_halved" with them as they stand
        in the mixture (peak 1), the more by 20 log10 of their scaling.

    Raises:
        DataError: There are more sources than estimates.
    """
    assignment = metrics.match_sources(-metrics.pairwise_mse(estimates, truth.sources), truth.counts)
    matched = metrics.take_matched(estimates, assignment)
    present = assignment >= 0
    return {
        "si_sdr": float(metrics.si_bss_eval(matched, truth.sources).sdr[present].mean()),
        "psnr": float(metrics.psnr(matched, truth.sources, peak=1 / truth.sources.shape[1])[present].mean()),
        "psnr_halved": float(metrics.psnr(matched, truth.sources)[present].mean()),
    }
