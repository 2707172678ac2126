"""Separates mixtures on a device: ai-edge-litert and NumPy, nothing else.

python separate.py MODEL.tflite MIXTURES.npy SOURCES.npy

MIXTURES is float32 [height, width], or [height, width, 3] for a model of colour, or several of them, in [0, 1];
SOURCES gets [num_sources, ...] for each.
"""

import sys
import zipfile
from typing import NoReturn

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def fail(message: object) -> NoReturn:
    """Prints one line and ends with code 2."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def main() -> None:
    """Reads mixtures, separates them one at a time, writes the sources."""
    if len(sys.argv) != 4:
        fail("usage: separate.py MODEL.tflite MIXTURES.npy SOURCES.npy")
    model_path, mixtures_path, sources_path = sys.argv[1:]
    try:
        separate = Interpreter(model_path=model_path, num_threads=1).get_signature_runner("separate")
        mixtures = np.asarray(np.load(mixtures_path), np.float32)
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        fail(f"{error}: give a model as .tflite and mixtures as .npy")
    shape = tuple(int(n) for n in separate.get_input_details()["mixture"]["shape"][1:])
    if not mixtures.size or (mixtures.shape != shape and mixtures.shape[1:] != shape):
        fail(f"{mixtures_path} has shape {mixtures.shape}; the model takes {shape}, or several of them.")
    if not (mixtures.min() >= 0 and mixtures.max() <= 1):  # NaN fails both
        fail(f"{mixtures_path} holds NaN or a value outside [0, 1].")
    sources = [separate(mixture=m)["sources"][0] for m in mixtures.reshape(-1, 1, *shape)]
    try:
        np.save(sources_path, sources[0] if mixtures.shape == shape else np.stack(sources))
    except OSError as error:
        fail(error)


if __name__ == "__main__":
    main()
