"""Mean scores of separated mixtures against their true sources; sound is judged by its waveforms."""

import numpy as np
import numpy.typing as npt

from vae_bss_tf import metrics
from vae_bss_tf.baselines import oracle
from vae_bss_tf.datasets.image_mixtures import EvaluationSet
from vae_bss_tf.datasets.sound_mixtures import AudioEvaluationSet

_UNMASKED = ("vae", "ae")
_ORACLES = {"ibm": oracle.ideal_binary_mask, "irm": oracle.ideal_ratio_mask}


def as_judged(
    system: str, outputs: npt.NDArray[np.float32], truth: EvaluationSet
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """What the ratios SI-SDR, SI-SIR and SI-SAR are taken on: pictures as they are, sound as waveforms.

    Args:
        system: What gave the outputs; those of "vae" and "ae" are magnitudes, of all others shares of the mixture.
            The oracles "ibm" and "irm" act on all of the sound's STFT, whatever the outputs.
        outputs: float32 `[num_mixtures, num_sources, *shape]`, all of a mixture's outputs.
        truth: The mixtures and their true sources.

    Returns:
        The outputs, float32 `[num_mixtures, num_sources, ...]`, and the true sources, float32
        `[num_mixtures, max_mixed, ...]`.
    """
    if not isinstance(truth, AudioEvaluationSet):
        return outputs, truth.sources
    if system in _ORACLES:
        return truth.oracle_waveforms(_ORACLES[system]), truth.source_waveforms
    to_waveforms = truth.decoded_waveforms if system in _UNMASKED else truth.masked_waveforms
    return to_waveforms(outputs), truth.source_waveforms


def mean_scores(estimates: npt.NDArray[np.float32], truth: EvaluationSet, system: str = "vaem") -> dict[str, float]:
    """Scores estimates matched to the true sources, averaged over all sources of all mixtures.

    Args:
        estimates: float32 `[num_mixtures, num_sources, *shape]`, all outputs of the model.
        truth: The mixtures' true sources, at most `num_sources` of them.
        system: As in `as_judged`.

    Returns:
        "si_sdr" in dB; "psnr" in dB with the sources at full scale (peak 1) and "psnr_halved" with them at half of it
        (peak 1), as they stand in the paper's mixtures: 6.02 dB more.

    Raises:
        DataError: There are more sources than estimates.
    """
    assignment = metrics.match_sources(-metrics.pairwise_mse(estimates, truth.sources), truth.counts)
    matched = metrics.take_matched(estimates, assignment)
    judged, sources = as_judged(system, estimates, truth)
    present = assignment >= 0
    return {
        "si_sdr": float(metrics.si_bss_eval(metrics.take_matched(judged, assignment), sources).sdr[present].mean()),
        "psnr": float(metrics.psnr(matched, truth.sources, peak=truth.gain)[present].mean()),
        "psnr_halved": float(metrics.psnr(matched, truth.sources, peak=2 * truth.gain)[present].mean()),
    }
