"""How good a separation is: PSNR, SSIM, scale-invariant ratios, matching, and the count of active sources.

Everything is vectorised NumPy over `[batch, num_sources, *shape]`. Scores are in decibels unless a function says
otherwise, and always finite: they are clipped to [`FLOOR_DB`, `CEILING_DB`], and silence has a defined score:

- silent estimate of a sounding source: `FLOOR_DB` for the scale-invariant ratios (its PSNR is that of zeros);
- sounding estimate of a silent source: `FLOOR_DB`;
- silent estimate of a silent source: `CEILING_DB`.

`metrics.consistency` has a score that needs no true sources. It remixes with TensorFlow and is imported by its name.

A source that a mixture lacks is all zeros; leave it out of a mean with the help of `counts`.
"""

from vae_bss_tf.metrics.activity import activity_levels, count_active, count_confusion, fit_activity_threshold
from vae_bss_tf.metrics.continuity import Continuity, continuity
from vae_bss_tf.metrics.matching import dropped_energy, match_sources, output_shares, pairwise_mse, take_matched
from vae_bss_tf.metrics.ratios import CEILING_DB, FLOOR_DB, BssEval, pairwise_si_bss_eval, psnr, si_bss_eval, ssim

__all__ = [
    "CEILING_DB",
    "FLOOR_DB",
    "BssEval",
    "Continuity",
    "activity_levels",
    "continuity",
    "count_active",
    "count_confusion",
    "dropped_energy",
    "fit_activity_threshold",
    "match_sources",
    "output_shares",
    "pairwise_mse",
    "pairwise_si_bss_eval",
    "psnr",
    "si_bss_eval",
    "ssim",
    "take_matched",
]
