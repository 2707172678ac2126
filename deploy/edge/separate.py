"""Separates mixtures on a device: ai-edge-litert and NumPy, nothing else.

python separate.py MODEL.tflite MIXTURES.npy SOURCES.npy

MIXTURES is float32 [height, width] or [n, height, width] in [0, 1]; SOURCES gets [num_sources, ...] for each.
"""

import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def main() -> None:
    """Reads mixtures, separates them one at a time, writes the sources."""
    model_path, mixtures_path, sources_path = sys.argv[1:]
    separate = Interpreter(model_path=model_path, num_threads=1).get_signature_runner("separate")
    _, height, width = separate.get_input_details()["mixture"]["shape"]
    mixtures = np.load(mixtures_path).astype(np.float32)
    sources = [separate(mixture=m)["sources"][0] for m in mixtures.reshape(-1, 1, height, width)]
    np.save(sources_path, sources[0] if mixtures.ndim == 2 else np.stack(sources))


if __name__ == "__main__":
    main()
