"""What `separate` says of what a model does not know: `python -m benchmarks.familiarity MODEL --truth DUETS`.

Recordings of two instruments, which the model knows, are compared with one of their parts alone, with two and four of
them played at once, and with noise.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks import add_json, write_results
from benchmarks.order import at_rate
from training.tables import to_markdown
from vae_bss_tf.arguments import Parser, command
from vae_bss_tf.audio import SUFFIXES
from vae_bss_tf.audio.familiarity import Familiarity, WindowSample
from vae_bss_tf.audio.separator import Separator

Array = npt.NDArray[np.float32]

_NOISE_SECONDS = 10
_BEATS_A_SECOND = 4


def together(recordings: list[Array], number: int) -> list[Array]:
    """The sums of each so many neighbours, as long as the shortest."""
    groups = [recordings[i : i + number] for i in range(0, len(recordings) - number + 1, number)]
    return [np.sum([part[: min(map(len, group))] for part in group], axis=0) for group in groups]


def noise(rate: float, count: int, course: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]) -> list[Array]:
    """White noise whose level follows a course over time, in seconds."""
    time = np.arange(int(_NOISE_SECONDS * rate)) / rate
    rng = np.random.default_rng(0)
    return [(0.1 * rng.normal(size=len(time)) * course(time)).astype(np.float32) for _ in range(count)]


def told(separator: Separator, recording: Array) -> Familiarity:
    """What `separate` tells of a recording `[samples]` at the model's rate."""
    sample = WindowSample()
    separator.find_orders([recording[:, np.newaxis]], separator.audio.sample_rate, 1, "the recording", sample)
    return separator.familiarity(sample)


def run(options: argparse.Namespace) -> None:
    """Judges all kinds of recordings, prints the table and writes the JSON file."""
    from training.evaluation.truth_folder import find_cases

    separator = Separator.load(options.model)
    rate, cases = separator.audio.sample_rate, find_cases(options.truth, SUFFIXES)
    mixtures = [at_rate(case.mixture, rate) for case in cases]
    kinds = {
        "as they are": mixtures,
        "one part alone": [at_rate(case.sources[0], rate) for case in cases],
        "two recordings at once": together(mixtures, 2),
        "four at once": together(mixtures, 4),
        "white noise": noise(rate, 5, np.ones_like),
        "beats of noise": noise(rate, 5, lambda time: np.exp(-8 * (_BEATS_A_SECOND * time % 1))),
    }
    rows, cells = {}, [["recordings", "number", "sum of the estimates, SI-SDR", "remixes, SI-SDRi", "warned of"]]
    for name, recordings in kinds.items():
        found = [told(separator, recording) for recording in recordings]
        warned = float(np.mean([bool(known.doubts(separator.usual)) for known in found]))
        sums = [known.sum_si_sdr for known in found if known.sum_si_sdr is not None]
        remixes = [known.remix_si_sdri for known in found if known.remix_si_sdri is not None]
        rows[name] = {"number": len(found), "sum_si_sdr": sums, "remix_si_sdri": remixes, "warned": warned}
        cells.append([name, str(len(found)), _spread(sums), _spread(remixes), f"{warned:.0%}"])
    print("\n".join(to_markdown(cells)))
    write_results(options.json, command=options.command, usual=separator.usual._asdict(), rows=rows)


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})" if values else "-"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m benchmarks.familiarity",
        description="What `separate` says of recordings that a model knows, and of others.",
        epilog="example: python -m benchmarks.familiarity saved_models/duets --truth ../shared/data/duets/test",
    )
    parser.add_argument("model", help="model of sound")
    parser.add_argument("--truth", required=True, type=Path, help="folder of folders, each a mixture and its sources")
    add_json(parser, "familiarity")
    return parser


main = command(_parser, run)


if __name__ == "__main__":
    sys.exit(main())
