"""Scores that others published for the same data, to stand beside what is measured here."""

# Tables 2 and 3 of Neri et al. 2021, by data set and K. Its notes are those of MUMS.
PAPER: dict[tuple[str, int], dict[str, tuple[float, ...]]] = {
    ("mnist", 2): {
        "nmf": (17.22, 0.50),
        "ae": (15.96, 0.43),
        "glo": (24.63, 0.86),
        "mixit": (25.69, 0.88),
        "vaem": (26.69, 0.93),
    },
    ("mnist", 3): {"nmf": (18.27, 0.44), "ae": (16.30, 0.43), "mixit": (25.41, 0.69), "vaem": (27.68, 0.94)},
    ("notes", 2): {
        "nmf": (5.40, 16.93, 7.96),
        "mixit": (6.64, 17.59, 8.26),
        "vae": (14.33, 29.92, 14.87),
        "vaem": (17.10, 29.55, 18.20),
        "ibm": (23.97, 48.89, 24.06),
        "irm": (22.66, 34.39, 23.23),
    },
}
PAPER_SCORES = {"mnist": ("psnr", "ssim"), "notes": ("si_sdr", "sir", "sar")}
PAPER_HEADINGS = {"mnist": "paper PSNR / SSIM", "notes": "paper (MUMS) SI-SDR / SIR / SAR"}

# As Li et al. 2026 (SURF, arXiv 2606.04921) give them: the system, what it learns from, PSNR in dB, SSIM.
_PAIRS_OF_DIGITS: tuple[tuple[str, str, str, str], ...] = (
    ("MixIT", "mixtures alone", "21.90", ""),
    ("RemixIT", "mixtures alone", "22.81", ""),
    ("Self-Remixing", "mixtures alone", "23.13", ""),
    ("SURF", "mixtures alone", "37.26", "0.992"),
    ("LASS", "clean digits", "24.23", ""),
    ("supervised regression", "mixtures and their sources", "26.02", "0.963"),
    ("BASIS", "clean digits", "29.67", "0.919"),
    ("supervised flow matching", "mixtures and their sources", "37.44", "0.992"),
)
LATER_NOTE = (
    "Published by others for pairs of MNIST digits (Li et al. 2026, arXiv 2606.04921), most likely at full scale:"
)


def later(dataset: str, num_sources: int) -> list[list[str]]:
    """What was published after the paper, as rows of text.

    Args:
        dataset: Name of the data set.
        num_sources: K.

    Returns:
        A heading, then a row for each system; empty where nothing is known.
    """
    if (dataset, num_sources) != ("mnist", 2):
        return []
    return [["system", "learns from", "PSNR full", "SSIM full"], *map(list, _PAIRS_OF_DIGITS)]
