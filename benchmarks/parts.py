"""Makes mixtures of more parts from recordings with known sources: `python -m benchmarks.parts`.

    python -m benchmarks.parts --truth DUETS --num-sources 3 --output trios

Each mixture is the sum of parts of different recordings, played by different instruments where the files' names say so
(`source1_cello.flac`). Two thirds of the recordings give `train`, mixtures alone; the rest give `known`, each mixture
with its sources, in the layout of `training.evaluate --truth`. So a model is trained on one and judged on the other:

    python -m training.fit --dataset mixtures --data-dir trios/train --num-sources 3
    python -m training.evaluate --run runs/mixtures-k3-seed0 --truth trios/known
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from vae_bss_tf.arguments import Parser, command
from vae_bss_tf.audio import SUFFIXES
from vae_bss_tf.checks import check
from vae_bss_tf.errors import ConfigError

Array = npt.NDArray[np.float32]

_TRAIN_SHARE = 2 / 3
_PEAK = 0.9
_TRIES = 1_000  # to draw parts of different recordings and instruments


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m benchmarks.parts", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--truth", required=True, type=Path, help="folder of folders, each a mixture and its sources")
    parser.add_argument("--num-sources", type=int, default=3, help="parts of each mixture (default: 3)")
    parser.add_argument("--count", type=int, default=600, help="mixtures to train on (default: 600)")
    parser.add_argument("--known", type=int, default=60, help="mixtures to judge on (default: 60)")
    parser.add_argument("--output", required=True, type=Path, help="folder to make; must not exist")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw (default: 0)")
    return parser


def instrument(path: Path) -> str:
    """Names who plays a part: "cello" of `source1_cello.flac`, or its recording where the file's name does not say."""
    _, _, name = path.stem.partition("_")
    return name or path.parent.name


def drawn(parts: list[Path], number: int, rng: np.random.Generator) -> list[Path]:
    """Draws parts of different recordings and instruments.

    Args:
        parts: Files of sources, each in its recording's folder.
        number: How many; at least 1.
        rng: Where the draw comes from.

    Returns:
        The files.

    Raises:
        ConfigError: There are not as many different ones.
    """
    for _ in range(_TRIES if len(parts) >= number else 0):
        chosen = [parts[i] for i in rng.choice(len(parts), number, replace=False)]
        if len({part.parent for part in chosen}) == len({instrument(part) for part in chosen}) == number:
            return chosen
    raise ConfigError(f"there are no {number} parts of different recordings and instruments among {len(parts)} files.")


def mixed(parts: list[Path]) -> tuple[Array, Array, int]:
    """Adds parts up, as far as the shortest goes.

    Args:
        parts: Files of sources.

    Returns:
        The mixture `[samples]`, its sources `[num_sources, samples]`, both scaled where the mixture would exceed a peak
        of 0.9, and their rate, Hz.

    Raises:
        ConfigError: The files' rates differ.
    """
    read = [soundfile.read(path, dtype="float32") for path in parts]
    rates = {rate for _, rate in read}
    if len(rates) > 1:
        raise ConfigError(f"{parts[0]} and {parts[1]} are among recordings of several rates; bring them to one first.")
    length = min(len(part) for part, _ in read)
    sources = np.stack([part[:length] for part, _ in read])
    mixture = sources.sum(axis=0)
    scale = np.float32(_PEAK / max(float(np.abs(mixture).max()), _PEAK))
    return scale * mixture, scale * sources, rates.pop()


def _write(options: argparse.Namespace) -> None:
    from training.evaluation.truth_folder import find_cases

    check(options.num_sources >= 2, "--num-sources", options.num_sources, "at least 2")
    if options.output.exists():
        raise ConfigError(f"{options.output} exists; choose another --output.")
    rng = np.random.default_rng(options.seed)
    cases = find_cases(options.truth, SUFFIXES)
    first = round(_TRAIN_SHARE * len(cases))
    of_training, of_judging = (
        [path for case in part for path in case.sources] for part in (cases[:first], cases[first:])
    )
    training = [drawn(of_training, options.num_sources, rng) for _ in range(options.count)]
    judging = [drawn(of_judging, options.num_sources, rng) for _ in range(options.known)]
    (options.output / "train").mkdir(parents=True)
    for i, parts in enumerate(training):
        mixture, _, rate = mixed(parts)
        soundfile.write(options.output / "train" / f"mixture{i:04d}.flac", mixture, rate)
    for i, parts in enumerate(judging):
        mixture, sources, rate = mixed(parts)
        folder = options.output / "known" / f"mixture{i:04d}"
        folder.mkdir(parents=True)
        soundfile.write(folder / "mixture.wav", mixture, rate, "FLOAT")
        for k, (part, source) in enumerate(zip(parts, sources, strict=True), start=1):
            soundfile.write(folder / f"source{k}_{instrument(part)}.wav", source, rate, "FLOAT")
    print(f"{options.output}: {len(training)} mixtures of {options.num_sources} parts, and {len(judging)} with sources")


main = command(_parser, _write)


if __name__ == "__main__":
    sys.exit(main())
