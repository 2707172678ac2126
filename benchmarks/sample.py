"""Makes the sample picture of the repository: `python -m benchmarks.sample --output sample`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from vae_bss_tf.errors import run_command
from vae_bss_tf.files import refuse_existing, replacing

DIGITS = (1_767, 484)  # of scikit-learn's: a four and a three
SIDE, DIGIT_SIDE = 112, 80  # pixels


def overlay() -> npt.NDArray[np.uint8]:
    """Lays two of scikit-learn's digits over each other, each at half its brightness.

    Returns:
        uint8 `[112, 112]`. In the middle 80 x 80 pixels are the digits, enlarged from 8 x 8 by bicubic interpolation.
    """
    from sklearn.datasets import load_digits

    images = load_digits().images
    margin = (SIDE - DIGIT_SIDE) // 2
    mixture = np.zeros((SIDE, SIDE), np.float32)
    for index in DIGITS:
        small = Image.fromarray((images[index] / 16).astype(np.float32))
        digit = np.asarray(small.resize((DIGIT_SIDE, DIGIT_SIDE), Image.Resampling.BICUBIC))
        mixture[margin : margin + DIGIT_SIDE, margin : margin + DIGIT_SIDE] += np.clip(digit, 0, 1) / 2
    return np.round(255 * mixture).astype(np.uint8)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: Its words; those of the process by default.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sample",
        description="Makes the sample picture, an overlay of two digits that ship with scikit-learn.",
        epilog="example: python -m benchmarks.sample --output sample",
    )
    parser.add_argument("--output", required=True, type=Path, help="folder to write overlay.png to")
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    options = parser.parse_args(arguments)
    return run_command(lambda: _write(options.output / "overlay.png", options.force))


def _write(path: Path, force: bool) -> None:
    refuse_existing([path], force=force)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        Image.fromarray(overlay()).save(partial, format="PNG", optimize=True)
    print(f"{path}\nnext: python -m vae_bss_tf.separate {path} --model saved_models/mnist --output separated")


if __name__ == "__main__":
    sys.exit(main())
