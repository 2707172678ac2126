"""Mean scores of separated mixtures against their true sources; sound is judged by its waveforms."""

import numpy as np
import numpy.typing as npt

from vae_bss_tf import metrics
from vae_bss_tf.datasets.image_mixtures import EvaluationSet
from vae_bss_tf.domains import domain_of


def mean_scores(estimates: npt.NDArray[np.float32], truth: EvaluationSet, system: str = "vaem") -> dict[str, float]:
    """Scores estimates matched to the true sources, averaged over all sources of all mixtures.

    Args:
        estimates: float32 `[num_mixtures, num_sources, *shape]`, all outputs of the model.
        truth: The mixtures' true sources, at most `num_sources` of them.
        system: What gave the estimates, as `domain.Sound.judged` takes it.

    Returns:
        "psnr" in dB with the sources at full scale (peak 1), "psnr_halved" with them at half of it (peak 1), as they
        are in the paper's mixtures: 6.02 dB more; and "si_sdr" in dB.

    Raises:
        DataError: There are more sources than estimates.
    """
    assignment = metrics.match_sources(-metrics.pairwise_mse(estimates, truth.sources), truth.counts)
    matched = metrics.take_matched(estimates, assignment)
    judged, sources = domain_of(truth.audio).judged(system, estimates, truth)
    present = assignment >= 0
    return {
        "psnr": float(metrics.psnr(matched, truth.sources, peak=truth.gain)[present].mean()),
        "psnr_halved": float(metrics.psnr(matched, truth.sources, peak=2 * truth.gain)[present].mean()),
        "si_sdr": float(metrics.si_bss_eval(metrics.take_matched(judged, assignment), sources).sdr[present].mean()),
    }
