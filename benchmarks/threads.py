"""How many mixtures per second several threads get from one loaded model: `python -m benchmarks.threads MODEL ...`.

Each thread calls `separate` with one mixture at a time. Models and numbers of threads take turns, so that whatever else
the machine does falls on all of them alike. Before that, 8 threads make 10,000 calls on each model, and every answer is
compared with the answer of a single thread, bit by bit.
"""

import argparse
import functools
import itertools
import os
import sys
from collections.abc import Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import add_json, write_results
from benchmarks.serving import measured
from training.tables import to_markdown
from vae_bss_tf.arguments import Parser, command
from vae_bss_tf.runtime import LoadedModel, load
from vae_bss_tf.startup import import_tensorflow

THREADS = (1, 2)
CHECKED_THREADS = 8
_DIFFERENT = 16  # mixtures that the threads of the check take turns with


def wrong_answers(model: LoadedModel, calls: int) -> int:
    """Counts the answers that differ from a single thread's when 8 threads call a model.

    Args:
        model: The model.
        calls: Calls of all threads together.

    Returns:
        How many of the answers differ in any bit.
    """
    mixtures = np.random.default_rng(0).random((_DIFFERENT, *model.metadata.input_shape), np.float32)
    expected = [model.separate(mixture) for mixture in mixtures]

    def is_wrong(index: int) -> bool:
        return not np.array_equal(model.separate(mixtures[index]), expected[index])

    with futures.ThreadPoolExecutor(CHECKED_THREADS) as pool:
        return sum(pool.map(is_wrong, itertools.islice(itertools.cycle(range(_DIFFERENT)), calls)))


def rows(paths: Sequence[Path], seconds: float, rounds: int, calls: int) -> list[dict[str, Any]]:
    """Measures every model.

    Args:
        paths: Models, as `load` takes them.
        seconds: Of each measurement.
        rounds: Measurements of each model and number of threads.
        calls: Calls of the check.

    Returns:
        One row for each model: its `format` and file `name`, `calls` and how many were `wrong`, and under `1` and `2`
        threads the mixtures per second over all rounds.
    """
    models = [load(path) for path in paths]
    found: list[dict[str, Any]] = [
        {"format": model.metadata.format, "name": path.name, "calls": calls, "wrong": wrong_answers(model, calls)}
        for path, model in zip(paths, models, strict=True)
    ]
    finished = np.zeros((len(models), len(THREADS)))
    spent = np.zeros_like(finished)
    for _ in range(rounds):
        for (i, model), (j, threads) in itertools.product(enumerate(models), enumerate(THREADS)):
            mixture = np.zeros(model.metadata.input_shape, np.float32)
            took, elapsed = measured(functools.partial(model.separate, mixture), threads, seconds)
            finished[i, j] += len(took)
            spent[i, j] += elapsed
    for row, speeds in zip(found, (finished / spent).tolist(), strict=True):
        row |= dict(zip(map(str, THREADS), speeds, strict=True))
    return found


def table(found: Sequence[dict[str, Any]]) -> str:
    """Lays rows out as a Markdown table."""
    cells = [["format", "file", "mixtures/s, 1 thread", "2 threads", "ratio", "wrong of calls"]]
    for row in found:
        one, two = row["1"], row["2"]
        wrong = f"{row['wrong']} of {row['calls']:,}"
        cells.append([row["format"], row["name"], f"{one:,.0f}", f"{two:,.0f}", f"{two / one:.2f}", wrong])
    return "\n".join(to_markdown(cells))


def run(options: argparse.Namespace) -> None:
    """Measures, prints the table and writes the JSON file."""
    import_tensorflow()
    load_average = os.getloadavg()
    found = rows(options.models, options.seconds, options.rounds, options.calls)
    print(table(found))
    write_results(
        options.json,
        command=options.command,
        check=f"{CHECKED_THREADS} threads; an answer is wrong if a bit of it differs from a single thread's",
        load_average=load_average,
        seconds=options.seconds,
        rounds=options.rounds,
        rows=found,
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m benchmarks.threads",
        description="Mixtures per second of one loaded model called by 1 and 2 threads, and a check of 8 threads.",
        epilog="example: python -m benchmarks.threads runs/mnist-k2-seed0 exported/mnist/*.tflite",
    )
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="run, SavedModel, .tflite or .onnx")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each (default: %(default)s)")
    parser.add_argument("--calls", type=int, default=10_000, help="calls of the check (default: %(default)s)")
    add_json(parser, "threads")
    return parser


main = command(_parser, run)


if __name__ == "__main__":
    sys.exit(main())
