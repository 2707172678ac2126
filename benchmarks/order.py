"""What the order of the sources costs: `python -m benchmarks.order saved_models/duets --truth DUETS`.

A model separates each window of a recording by itself, in any order of the sources. Recordings with known sources are
put together from the same separated windows in three ways: each window matched to those before it by their overlaps, as
in a stream; in the order that `vae_bss_tf.Separator` finds in the whole recording; and in the order that the truth
chooses for each window, which is the best that any order could give.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchmarks import add_json, write_results
from training.tables import to_markdown
from vae_bss_tf.arguments import Parser, command
from vae_bss_tf.audio import SUFFIXES, recordings
from vae_bss_tf.audio.overlap_add import Orders, overlap_add, windows
from vae_bss_tf.audio.separator import Separator
from vae_bss_tf.errors import ConfigError
from vae_bss_tf.startup import import_tensorflow

if TYPE_CHECKING:
    from training.evaluation.truth_folder import Case

WAYS = {"overlaps": "overlaps alone", "recording": "the whole recording", "truth": "the truth"}
_SURE = 0.99
_SOUNDING = 0.01  # of a source's mean energy: a window where a source is quieter has no order

Array = npt.NDArray[np.float32]


def at_rate(path: Path, rate: float) -> Array:
    """Reads a recording as float32 `[samples]` at a rate in Hz, the mean of its channels."""
    return np.concatenate(list(recordings.mono(recordings.describe(path), rate)))


def true_orders(separated: Array, sources: Array) -> Orders:
    """Finds the estimate of each window that stands for each source.

    Args:
        separated: float32 `[windows, samples, num_sources]`.
        sources: float32 of the same shape, the true ones.

    Returns:
        int64 `[windows, num_sources]`, the order of least squared error.
    """
    from vae_bss_tf import metrics

    return metrics.match_sources(np.einsum("wnk,wnm->wkm", separated, sources, dtype=np.float64))


def judged(separator: Separator, case: "Case") -> dict[str, Any]:
    """Puts one recording together in each way.

    Args:
        separator: The separator.
        case: The recording and its sources.

    Returns:
        `si_sdr` of each of `WAYS`, at the model's rate; the share of the sounding windows that are `wrong`, of the
        `sure` ones among them, and of those that are `wrong_where_sure`.
    """
    from vae_bss_tf import metrics

    rate, length = separator.audio.sample_rate, separator.audio.num_samples
    mixture = at_rate(case.mixture, rate)
    sources = np.stack([at_rate(path, rate) for path in case.sources])
    if len(sources) != 2:
        raise ConfigError(f"{case.name} has {len(sources)} sources; it must have two.")
    cut = [list(windows(iter([signal[:, np.newaxis]]), length, 1)) for signal in (mixture, *sources)]
    batches = [(separator.separate_windows(batch), end) for batch, end in cut[0]]
    separated = np.concatenate([batch for batch, _ in batches])[..., 0]
    of_sources = np.stack([np.concatenate([batch[:, 0] for batch, _ in part]) for part in cut[1:]], axis=-1)
    best = true_orders(separated, of_sources)
    found, certainty = separator.find_orders([mixture[:, np.newaxis]], rate, 1, str(case.mixture))
    assert found is not None
    assert certainty is not None
    scores = {}
    for way, orders in zip(WAYS, (None, found, best), strict=True):
        outputs = np.concatenate(list(overlap_add(batches, orders)))[..., 0].T
        ratios = metrics.pairwise_si_bss_eval(outputs[np.newaxis], sources[np.newaxis]).sdr
        scores[way] = float(np.take_along_axis(ratios, metrics.match_sources(ratios)[:, np.newaxis], axis=1).mean())
    energy = np.square(of_sources).sum(axis=1)
    sounding = (energy >= _SOUNDING * energy.mean(axis=0)).all(axis=1)
    wrong = (found != best).any(axis=1)[sounding]
    wrong = min(wrong, ~wrong, key=np.mean)  # over the whole recording any order is right
    sure = certainty[sounding] >= _SURE
    return {"si_sdr": scores, "wrong": wrong.mean(), "sure": sure.mean(), "wrong_where_sure": wrong[sure].mean()}


def run(options: argparse.Namespace) -> None:
    """Judges all recordings, prints the table and writes the JSON file."""
    import_tensorflow()
    from training.evaluation.truth_folder import find_cases

    separator = Separator.load(options.model)
    if separator.num_sources != 2:
        raise ConfigError(f"{options.model} has {separator.num_sources} sources; it must have two.")
    cases = find_cases(options.truth, SUFFIXES)
    rows = [judged(separator, case) for case in cases]
    mean = {way: float(np.mean([row["si_sdr"][way] for row in rows])) for way in WAYS}
    shares = {name: float(np.nanmean([row[name] for row in rows])) for name in ("wrong", "sure", "wrong_where_sure")}
    table = [["order by", "SI-SDR, dB"], *([title, f"{mean[way]:.2f}"] for way, title in WAYS.items())]
    print("\n".join(to_markdown(table)))
    print(
        f"windows out of order {shares['wrong']:.1%}; sure {shares['sure']:.0%}, and out of order "
        f"{shares['wrong_where_sure']:.1%} of these"
    )
    write_results(
        options.json,
        command=options.command,
        recordings=len(rows),
        rate=separator.audio.sample_rate,
        si_sdr=mean,
        **shares,
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m benchmarks.order",
        description="What the order of the sources costs: by overlaps, by the whole recording, by the truth.",
        epilog="example: python -m benchmarks.order saved_models/duets --truth ../shared/data/duets/test",
    )
    parser.add_argument("model", help="model of two sources of sound")
    parser.add_argument("--truth", required=True, type=Path, help="folder of folders, each a mixture and its sources")
    add_json(parser, "order")
    return parser


main = command(_parser, run)


if __name__ == "__main__":
    sys.exit(main())
