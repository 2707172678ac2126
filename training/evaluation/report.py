"""A comparison as a table on the screen, Markdown, CSV and JSON, beside the paper's own rows."""

import dataclasses
import datetime
import os
import platform
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from training import tables
from training.evaluation import without_truth
from training.evaluation.judging import Result
from training.evaluation.published import LATER_NOTE, PAPER, PAPER_HEADINGS, PAPER_SCORES, later
from training.evaluation.statistics import BOOTSTRAP_RESAMPLES, BOOTSTRAP_SEED, Summary, compare
from training.systems import System
from vae_bss_tf import metrics
from vae_bss_tf.datasets.image_mixtures import EvaluationSet
from vae_bss_tf.domains import Domain, domain_of

HEADINGS = {
    "psnr": "PSNR full",
    "psnr_halved": "PSNR halved",
    "ssim": "SSIM full",
    "ssim_halved": "SSIM halved",
    "si_sdr": "SI-SDR",
    "si_sir": "SI-SIR",
    "si_sar": "SI-SAR",
}
NOTES = (
    "PSNR, SI-SDR, SI-SIR and SI-SAR are in dB. 'full': sources at full scale, peak 1. 'halved': sources at half "
    "scale, as they are in the paper's mixtures, also with peak 1. The paper does not name its scale; the halved one "
    "fits its numbers. Scores are means over mixtures; ± is half the 95 % bootstrap interval "
    f"({BOOTSTRAP_RESAMPLES} resamples of mixtures, seed {BOOTSTRAP_SEED}). Outputs are masked over all K and then "
    "matched to the true sources by least squared error; this choice of the best outputs uses the truth, for every "
    f"system alike. A silent estimate scores {metrics.FLOOR_DB:g} dB in SI-SDR, SI-SIR and SI-SAR. 'dropped': share of "
    "the energy in outputs that are matched to no source. 'count': share of the mixtures whose number of sources was "
    "found. For sound, PSNR and SSIM are those of the spectrograms that the model sees, and SI-SDR, SI-SIR and SI-SAR "
    f"those of the waveforms. {without_truth.NOTE}"
)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """All systems at one K on one set of mixtures.

    Attributes:
        dataset: Name of the data set.
        num_sources: K.
        truth: The test mixtures.
        results: One for each system, in the order of the table.
        run: Name of the run folder that is judged alone; None where systems are compared.
        has_truth: Whether the true sources are known.
    """

    dataset: str
    num_sources: int
    truth: EvaluationSet
    results: list[Result]
    run: str | None = None
    has_truth: bool = True

    @property
    def domain(self) -> Domain:
        """What the mixtures are."""
        return domain_of(self.truth.audio)

    def system(self, name: str) -> System:
        """The system of a name, one of the results'."""
        return next(result.system for result in self.results if result.system.name == name)

    @property
    def num_mixed(self) -> list[int]:
        """The counts M of sources in the mixtures."""
        return [int(count) for count in np.unique(self.truth.counts)]


def _paper(comparison: Comparison) -> dict[str, tuple[float, ...]]:
    """The paper's scores by system, where it judged such mixtures."""
    return PAPER.get((comparison.dataset, comparison.num_sources), {}) if comparison.num_mixed == [2] else {}


def table(comparison: Comparison) -> list[list[str]]:
    """The comparison as rows of text.

    Args:
        comparison: The comparison.

    Returns:
        A heading, then a row for each system.
    """
    if not comparison.has_truth:
        return without_truth.table(comparison.results)
    paper = _paper(comparison)
    heading = ["system", *HEADINGS.values(), without_truth.HEADING, "dropped", "count", "ms/mixture"]
    heading += ["fitted on", "in s", "parameters"]
    rows = [heading + ([PAPER_HEADINGS[comparison.dataset]] if paper else [])]
    for result in comparison.results:
        accuracy = result.count_accuracy(comparison.truth.counts)
        budget = result.budget
        row = [
            result.system.title,
            *(_score(name, summary) for name, summary in result.summaries().items()),
            without_truth.cell(result),
            "" if result.dropped_energy is None else f"{result.dropped_energy.mean():.3f}",
            "" if accuracy is None else f"{accuracy:.3f}",
            f"{1000 * result.seconds_per_mixture:.3g}",
            f"{budget['mixtures']:,}" if budget else "",
            f"{budget['seconds']:.0f}" if budget else "",
            f"{budget['parameters']:,}" if budget else "",
        ]
        if paper:
            row.append(" / ".join(f"{value:.2f}" for value in paper.get(result.system.name, ())))
        rows.append(row)
    return rows


def _score(name: str, summary: Summary) -> str:
    half = (summary.high - summary.low) / 2
    return f"{summary.mean:.3f} ± {half:.3f}" if name.startswith("ssim") else f"{summary.mean:.2f} ± {half:.2f}"


def reference(comparison: Comparison) -> Result:
    """The result that the others are compared with: VAEM, or the last trained one where there is no VAEM."""
    trained = [r for r in comparison.results if r.system.kind == "trained"] or comparison.results
    return next((r for r in trained if r.system.name == "vaem"), trained[-1])


def paired(comparison: Comparison) -> list[dict[str, Any]]:
    """The reference system less each other one, on the same mixtures, and the ratio of their times.

    Args:
        comparison: The comparison.

    Returns:
        A dictionary for each other system: "system", "against", "score", the fields of `PairedComparison`, and
        "time_ratio", the other's time for a mixture over the reference's. Empty where the true sources are not known.
    """
    if not comparison.has_truth:
        return []
    first = reference(comparison)
    return [
        {
            "system": first.system.name,
            "against": other.system.name,
            "score": comparison.domain.paired_score,
            **dataclasses.asdict(
                compare(first.scores[comparison.domain.paired_score], other.scores[comparison.domain.paired_score])
            ),
            "time_ratio": other.seconds_per_mixture / first.seconds_per_mixture,
        }
        for other in comparison.results
        if other is not first
    ]


def paired_table(comparison: Comparison) -> list[list[str]]:
    """`paired` as rows of text, with a heading."""
    title = reference(comparison).system.title
    rows = [
        [
            f"{title} less",
            f"{HEADINGS[comparison.domain.paired_score]}, dB",
            "95 % interval",
            "ahead on",
            "Wilcoxon p",
            f"time / {title}'s",
        ]
    ]
    for row in paired(comparison):
        rows.append(
            [
                comparison.system(row["against"]).title,
                f"{row['difference']:+.2f}",
                f"{row['low']:+.2f} to {row['high']:+.2f}",
                f"{100 * row['wins']:.0f} %",
                f"{row['p_value']:.1g}",
                f"{row['time_ratio']:.3g}",
            ]
        )
    return rows


def verdict(comparison: Comparison) -> str | None:
    """One line that names the systems that the reference is not ahead of, oracles and its own variants apart.

    Args:
        comparison: The comparison.

    Returns:
        The line; None where there is no such system to compare with.
    """
    own = reference(comparison).system
    against = [(comparison.system(row["against"]), row["low"]) for row in paired(comparison)]
    rivals = [(s, low) for s, low in against if s.kind != "oracle" and s.trained_as != own.trained_as]
    if not rivals:
        return None
    ahead = [system.title for system, low in rivals if low <= 0]
    if not ahead:
        return f"{own.title} is ahead of every other system in the table, oracles and its own variants apart."
    return f"{own.title} is NOT ahead of: {', '.join(ahead)}."


def confusion(comparison: Comparison, result: Result) -> list[list[str]] | None:
    """Confusion matrix of the number of sources as rows of text, for mixtures of several counts.

    Args:
        comparison: The comparison.
        result: One of its results.

    Returns:
        A heading and a row for each count M; None where no sources were counted.
    """
    if result.found_counts is None:
        return None
    matrix = metrics.count_confusion(comparison.truth.counts, result.found_counts, comparison.num_sources)
    rows = [["sources", *(f"found {k}" for k in range(comparison.num_sources + 1)), "right"]]
    for count in comparison.num_mixed:
        rows.append([str(count), *map(str, matrix[count]), f"{matrix[count, count] / matrix[count].sum():.3f}"])
    return rows


def title(comparison: Comparison) -> str:
    """Heading of a comparison: the run judged, data set, M, K, number of mixtures."""
    mixed = ", ".join(map(str, comparison.num_mixed))
    number = len(comparison.truth.mixtures)
    judged = "" if comparison.run is None else f"{comparison.run}, "
    if not comparison.has_truth:
        return f"{judged}{comparison.dataset}: {number:,} test mixtures without a truth, K = {comparison.num_sources}"
    return f"{judged}{comparison.dataset}: {number:,} test mixtures of {mixed} sources, K = {comparison.num_sources}"


def notes(comparisons: Sequence[Comparison]) -> str:
    """What the columns of the tables mean."""
    kinds = {True: NOTES, False: without_truth.NOTES}
    return " ".join(kinds[known] for known in sorted({comparison.has_truth for comparison in comparisons}))


def to_markdown(comparisons: Sequence[Comparison], description: dict[str, Any]) -> str:
    """All comparisons as one Markdown document.

    Args:
        comparisons: The comparisons.
        description: As `describe` gives it.

    Returns:
        The text.
    """
    lines = ["# Comparison", "", f"Command: `{description['command']}`", ""]
    lines += [
        f"{description['date']}, {description['machine']}. {description['seconds']:.0f} s in all, of which "
        f"{description['cpu_seconds']:.0f} s of processor time over all cores.",
        "",
        notes(comparisons),
        "",
    ]
    for comparison in comparisons:
        lines += [f"## {title(comparison)}", "", *tables.to_markdown(table(comparison)), ""]
        if sentence := verdict(comparison):
            lines += [sentence, ""]
        if comparison.has_truth and len(comparison.results) > 1:
            lines += [*tables.to_markdown(paired_table(comparison)), ""]
        if rows := later(comparison.dataset, comparison.num_sources) if comparison.num_mixed == [2] else []:
            lines += [LATER_NOTE, "", *tables.to_markdown(rows), ""]
        for result in comparison.results:
            counted = confusion(comparison, result)
            if counted is not None and result is reference(comparison):
                lines += [f"Sources found by {result.system.title} (threshold {result.threshold:.1f} dB):", ""]
                lines += [*tables.to_markdown(counted), ""]
    return "\n".join(lines)


def to_csv(comparisons: Sequence[Comparison]) -> str:
    """One line for each K, system and score: mean, median, interval, number of mixtures."""
    rows: list[list[object]] = [
        ["dataset", "num_sources", "system", "score", "mean", "median", "low", "high", "mixtures", "seed", "run"]
    ]
    for comparison in comparisons:
        for result in comparison.results:
            key = [comparison.dataset, comparison.num_sources, result.system.name]
            remixed = without_truth.summary(result)
            scores = result.summaries() | ({} if remixed is None else {without_truth.NAME: remixed})
            for name, summary in scores.items():
                values = [f"{value:.6g}" for value in dataclasses.astuple(summary)]
                judged = [len(comparison.truth.mixtures), result.budget.get("seed", ""), comparison.run or ""]
                rows.append([*key, name, *values, *judged])
    return tables.to_csv(rows)


def to_json(comparisons: Sequence[Comparison], description: dict[str, Any]) -> dict[str, Any]:
    """All comparisons as values that JSON can hold.

    Args:
        comparisons: The comparisons.
        description: As `describe` gives it.

    Returns:
        The description and, for each comparison, its results, paired comparisons and verdict.
    """
    return {
        **description,
        "notes": notes(comparisons),
        "comparisons": [
            {
                "run": comparison.run,
                "dataset": comparison.dataset,
                "num_sources": comparison.num_sources,
                "has_truth": comparison.has_truth,
                "num_mixed": comparison.num_mixed if comparison.has_truth else None,
                "mixtures": len(comparison.truth.mixtures),
                "results": [_result_values(comparison, result) for result in comparison.results],
                "paired": paired(comparison),
                "verdict": verdict(comparison),
            }
            for comparison in comparisons
        ],
    }


def _result_values(comparison: Comparison, result: Result) -> dict[str, Any]:
    paper = _paper(comparison).get(result.system.name)
    counted = None
    if result.found_counts is not None:
        matrix = metrics.count_confusion(comparison.truth.counts, result.found_counts, comparison.num_sources)
        counted = {
            "threshold_db": result.threshold,
            "accuracy": result.count_accuracy(comparison.truth.counts),
            "confusion": matrix.tolist(),
        }
    known, remixed = None, without_truth.summary(result)
    if result.without_truth is not None and remixed is not None:
        known = {**result.without_truth.values(), without_truth.NAME: dataclasses.asdict(remixed)}
    return {
        "system": result.system.name,
        "kind": result.system.kind,
        "scores": {name: dataclasses.asdict(summary) for name, summary in result.summaries().items()},
        "without_truth": known,
        "dropped_energy": None if result.dropped_energy is None else float(result.dropped_energy.mean()),
        "count": counted,
        "seconds_per_mixture": result.seconds_per_mixture,
        "budget": result.budget,
        "paper": None if paper is None else dict(zip(PAPER_SCORES[comparison.dataset], paper, strict=True)),
    }


def describe(command: str, started: float, test_seed: int | None) -> dict[str, Any]:
    """What stands at the head of a report.

    Args:
        command: The command that made it.
        started: When it began, as `time.perf_counter` gives it.
        test_seed: Seed of the test mixtures; None where they are not drawn.

    Returns:
        The values: the command, the date (ISO 8601), how long it took, its processor time over all cores, and the
        machine in words.
    """
    machine = f"{os.cpu_count()} x {platform.machine()} CPU, {platform.system()}, Python {platform.python_version()}"
    return {
        "command": command,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(time.process_time(), 1),
        "machine": machine,
        **({} if test_seed is None else {"test_seed": test_seed}),
    }
