"""What makes recordings harder to separate: `python -m benchmarks.conditions saved_models/duets --truth DUETS`.

Recordings with known sources are changed in one way at a time, and separated whole by the same model: one source is
louder than the other, one comes later so that notes seldom begin together, both sound in a room, noise is added. The
true sources are those of the changed mixture.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import add_json, write_results
from training.tables import to_markdown
from vae_bss_tf.arguments import Parser, command
from vae_bss_tf.audio import SUFFIXES
from vae_bss_tf.startup import import_tensorflow

Array = npt.NDArray[np.float64]

_DELAY_SECONDS = 0.2
_ROOM_SECONDS = 0.3  # in which the reverberation falls by 60 dB
_ROOM_DB = -6.0  # energy of the reverberation against the direct sound
_NOISE_DB = -30.0  # energy of the noise against the mixture


def as_they_are(sources: Array, rate: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """The mixture `[samples]` of sources `[num_sources, samples]`, and the sources."""
    return sources.sum(axis=0), sources


def louder(sources: Array, rate: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """As `as_they_are`, with one source, drawn at random, 6 dB louder."""
    gains = np.ones((len(sources), 1))
    gains[rng.integers(len(sources))] = 10 ** (6 / 20)
    return as_they_are(gains * sources, rate, rng)


def later(sources: Array, rate: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """As `as_they_are`, with one source, drawn at random, 0.2 s later, which is less than most notes last."""
    delayed, k = sources.copy(), rng.integers(len(sources))
    delay = int(_DELAY_SECONDS * rate)
    delayed[k] = np.concatenate([np.zeros(delay), sources[k, :-delay]])
    return as_they_are(delayed, rate, rng)


def in_a_room(sources: Array, rate: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """As `as_they_are`, each source with an exponentially decaying reverberation of its own."""
    from scipy import signal

    time = np.arange(int(_ROOM_SECONDS * rate)) / rate
    heard = []
    for source in sources:
        response = rng.normal(size=len(time)) * 10 ** (-3 * time / _ROOM_SECONDS)
        response *= np.sqrt(10 ** (_ROOM_DB / 10) / np.sum(response**2))
        response[0] += 1
        heard.append(signal.fftconvolve(source, response)[: len(source)])
    return as_they_are(np.stack(heard), rate, rng)


def noisy(sources: Array, rate: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """As `as_they_are`, with white noise in the mixture."""
    mixture = sources.sum(axis=0)
    level = np.sqrt(10 ** (_NOISE_DB / 10) * np.mean(mixture**2))
    return mixture + level * rng.normal(size=mixture.shape), sources


CONDITIONS: dict[str, Callable[[Array, float, np.random.Generator], tuple[Array, Array]]] = {
    "as they are": as_they_are,
    "one source 6 dB louder": louder,
    "one source 0.2 s later, so that notes seldom begin together": later,
    "reverberation of 0.3 s, 6 dB below the direct sound": in_a_room,
    "white noise, 30 dB below the mixture": noisy,
}


def write_changed(truth: Path, output: Path, name: str) -> None:
    """Writes changed mixtures and their sources.

    Args:
        truth: Folder of folders, each with a mixture and its sources.
        output: Where to write the same folders to, as 32-bit WAV.
        name: A key of `CONDITIONS`.
    """
    import soundfile

    from training.evaluation.truth_folder import find_cases

    rng = np.random.default_rng(0)
    for case in find_cases(truth, SUFFIXES):
        read = [soundfile.read(path) for path in case.sources]
        rate = read[0][1]
        mixture, sources = CONDITIONS[name](np.stack([source for source, _ in read]), rate, rng)
        scale = 0.9 / max(np.abs(mixture).max(), 0.9)
        folder = output / case.name
        folder.mkdir(parents=True)
        for file, signal in {"mixture": mixture, **{f"source{k}": s for k, s in enumerate(sources, start=1)}}.items():
            soundfile.write(folder / f"{file}.wav", scale * signal, rate, subtype="FLOAT")


def run(options: argparse.Namespace) -> None:
    """Judges the model under every condition, prints the table and writes the JSON file."""
    import_tensorflow()
    from training.evaluation import truth_folder
    from training.run import Run

    model = Run.load(options.model)
    rows: dict[str, dict[str, Any]] = {}
    for name in CONDITIONS:
        with tempfile.TemporaryDirectory() as scratch:
            write_changed(options.truth, Path(scratch) / "truth", name)
            _, (mixture, judged) = truth_folder.judge([model], Path(scratch) / "truth")
        found = judged.summaries()
        rows[name] = {
            "mixture_si_sdr": float(mixture.summaries()["si_sdr"].mean),
            **{score: float(found[score].mean) for score in ("si_sdr", "window_si_sdr", "exchanged")},
        }
    heads = ["", "the mixture itself, SI-SDR", "separated, SI-SDR", "by windows", "exchanged"]
    cells = [
        [name, *(f"{row[key]:.1f}" for key in ("mixture_si_sdr", "si_sdr", "window_si_sdr")), f"{row['exchanged']:.0%}"]
        for name, row in rows.items()
    ]
    print("\n".join(to_markdown([heads, *cells])))
    write_results(options.json, command=options.command, seed=0, rows=rows)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m benchmarks.conditions",
        description="What makes recordings harder to separate: other levels, a room, noise.",
        epilog="example: python -m benchmarks.conditions saved_models/duets --truth ../shared/data/duets/test",
    )
    parser.add_argument("model", type=Path, help="run or export of a model of sound")
    parser.add_argument("--truth", required=True, type=Path, help="folder of folders, each a mixture and its sources")
    add_json(parser, "conditions")
    return parser


main = command(_parser, run)


if __name__ == "__main__":
    sys.exit(main())
