"""What a fixed folder of overlaid digits gives, beside mixtures that are made afresh in each step.

    python -m benchmarks.fixed_mixtures --data-dir MNIST --output WORK --counts 10000 --minutes 20
    python -m benchmarks.fixed_mixtures --data-dir MNIST --output WORK --side 64 --counts 20000 --minutes 40
    python -m benchmarks.fixed_mixtures --data-dir MNIST --output WORK --counts 1000 --epochs 6 --set data.max_shift=2

For each count it writes a folder of PNG files, overlays that are made once, trains on it as a user does
(`training.fit --dataset images`), and judges the run on overlays of test digits (`training.evaluate --truth`). Count 0
stands for mixing afresh: the folder then holds single digits, and `--num-mixed 2` mixes them. All trainings have the
same recipe and seed, and the same minutes or, by --epochs, the same number of mixtures, which a machine that does other
work beside them does not change. --set goes to `training.fit` as it is. A training that was interrupted is resumed, a
finished one is not repeated.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from vae_bss_tf.arguments import Parser, command
from vae_bss_tf.datasets import load_bank
from vae_bss_tf.errors import ConfigError
from vae_bss_tf.files import write_json

RESULTS = Path("benchmarks/results/fixed_mixtures.json")
SIDES = (28, 64, 128)  # pixels; MNIST's own grey digits, and coloured ones at random places
NUM_VALIDATION, NUM_TEST = 500, 1_000
SEED = 0

UInt8 = npt.NDArray[np.uint8]


def source(digit: UInt8, side: int, rng: np.random.Generator) -> UInt8:
    """Makes one source, at the level that it has in a mixture of two.

    Args:
        digit: uint8 `[28, 28]`.
        side: One of `SIDES`. Above 28 pixels the digit is enlarged `side // 64` times, painted in a random colour of
            full brightness and set at a random place.
        rng: Draws colour and place.

    Returns:
        uint8 `[28, 28]` or `[side, side, 3]`, at most 127: two of them add up to a picture without clipping.
    """
    halved = digit // 2
    if side == len(digit):
        return halved
    halved = np.kron(halved, np.ones((side // 64, side // 64), np.uint8))
    hue = rng.uniform(size=3)
    hue /= hue.max()
    top, left = rng.integers(side - len(halved) + 1, size=2)
    picture = np.zeros((side, side, 3), np.uint8)
    picture[top : top + len(halved), left : left + len(halved)] = (halved[..., None] * hue).astype(np.uint8)
    return picture


def write_folders(data_dir: Path, output: Path, count: int, side: int) -> Path:
    """Writes the pictures to train on, in the layout of `--dataset images`, and the mixtures to judge with their truth.

    Args:
        data_dir: MNIST's four IDX files.
        output: Folder to write to; what is there already stays.
        count: Mixtures to train on; 0 writes every training digit on its own.
        side: As `source`.

    Returns:
        The folder to train on. The mixtures to judge, the same for every count, are in `output/SIDE-truth`.
    """
    banks = {split: load_bank("mnist", split, data_dir).items for split in ("train", "validation", "test")}
    folder = output / f"{side}-{f'fixed{count}' if count else 'singles'}"
    if not folder.exists():
        partial = output / f".{folder.name}"
        for split, number in (("train", count), ("validation", NUM_VALIDATION), ("test", NUM_VALIDATION)):
            (partial / split).mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng((SEED, len(split), count))
            drawn = rng.integers(len(banks[split]), size=(number or len(banks[split]), 2 if count else 1))
            if not count:
                drawn = np.arange(len(drawn))[:, None]
            for i, digits in enumerate(drawn):
                parts = [source(banks[split][digit], side, rng) for digit in digits]
                _save(sum(parts[1:], parts[0]) if count else 2 * parts[0], partial / split / f"{i:05d}.png")
        partial.rename(folder)
    truth = output / f"{side}-truth"
    if not truth.exists():
        rng = np.random.default_rng((SEED, 99))
        for i, digits in enumerate(rng.integers(len(banks["test"]), size=(NUM_TEST, 2))):
            case = output / f".{truth.name}" / f"{i:05d}"
            case.mkdir(parents=True, exist_ok=True)
            parts = [source(banks["test"][digit], side, rng) for digit in digits]
            _save(parts[0] + parts[1], case / "mixture.png")
            for k, part in enumerate(parts, 1):
                _save(part, case / f"source{k}.png")
        (output / f".{truth.name}").rename(truth)
    return folder


def measure(data_dir: Path, output: Path, count: int, side: int, words: Sequence[str]) -> dict[str, Any]:
    """Trains on one folder and judges the run.

    Args:
        data_dir: MNIST's four IDX files.
        output: Folder to work in.
        count: As `write_folders`.
        side: As `source`.
        words: Budget and settings of the training, as `training.fit` takes them.

    Returns:
        The row of the table: count, side, words, and SI-SDR and PSNR (dB) of the run and of the mixture itself.
    """
    folder = write_folders(data_dir, output, count, side)
    run = output / "-".join(["run", folder.name, *(word.removeprefix("--") for word in words)])
    if not (run / "metrics.json").exists():
        fit = ["training.fit", "--dataset", "images", "--data-dir", str(folder), "--seed", str(SEED), *words]
        fit += ["--output", str(run), "--quiet"]
        fit += [] if count else ["--num-mixed", "2"]
        _run([*fit, *(["--resume"] if run.exists() else [])])
    _run(["training.evaluate", "--run", str(run), "--truth", str(output / f"{side}-truth"), "--force"])
    judged = json.loads((run / "evaluation" / "truth.json").read_text())
    metrics = json.loads((run / "metrics.json").read_text())
    trained = {name: metrics[name] for name in ("seed", "seconds", "epochs", "mixtures")}
    scores = {
        "the mixture itself" if i == 0 else "separated": {
            name: {key: round(score[key], 3) for key in ("mean", "low", "high")}
            for name, score in system["scores"].items()
            if name in ("psnr", "si_sdr")
        }
        for i, system in enumerate(judged["results"])
    }
    row = {"count": count, "side": side, "fit": " ".join(words), "trained": trained, "pairs": NUM_TEST, **scores}
    print(json.dumps(row), flush=True)
    return row


def _save(picture: UInt8, path: Path) -> None:
    Image.fromarray(picture).save(path)


def _run(words: Sequence[str]) -> None:
    print("python -m " + " ".join(words), flush=True)
    done = subprocess.run([sys.executable, "-m", *words], check=False)
    if done.returncode:
        raise ConfigError(f"{words[0]} ended with exit code {done.returncode}; see the lines above.")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m benchmarks.fixed_mixtures", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--data-dir", required=True, type=Path, help="MNIST's four IDX files")
    parser.add_argument("--output", required=True, type=Path, help="folder to work in; resumed where it was")
    parser.add_argument("--counts", default="10000,0", help="numbers of fixed mixtures, with commas; 0 mixes afresh")
    parser.add_argument("--side", type=int, choices=SIDES, default=SIDES[0], help="of the pictures, in pixels; above "
                        "28 the digits are coloured and stand at random places (default: 28)")  # fmt: skip
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, default=20.0, help="minutes of each training (default: 20)")
    budget.add_argument("--epochs", type=int, help="epochs of each training, in place of minutes")
    parser.add_argument("--set", action="append", default=[], help="as `training.fit` takes it: data.max_shift=2")
    parser.add_argument("--json", type=Path, help=f"where to write the rows, such as {RESULTS}")
    return parser


def _command(options: argparse.Namespace) -> None:
    counts = options.counts.split(",")
    if not all(count.isdigit() for count in counts):
        raise ConfigError(f"--counts {options.counts}: give whole numbers with commas between, such as 1000,10000,0.")
    options.output.mkdir(parents=True, exist_ok=True)
    budget, value = ("minutes", options.minutes) if options.epochs is None else ("epochs", options.epochs)
    words = [f"--{budget}", f"{value:g}"]
    words += [word for setting in options.set for word in ("--set", setting)]
    rows = []
    for count in map(int, counts):
        rows.append(measure(options.data_dir, options.output, count, options.side, words))
        if options.json is not None:
            write_json(options.json, rows)


main = command(_parser, _command)


if __name__ == "__main__":
    sys.exit(main())
