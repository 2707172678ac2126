"""Writes the golden outputs of a shipped model: what its run's Keras model says about fixed patterns.

    python tests/golden/make.py --run runs/mnist-masked-k2-seed0 --name mnist

The mixtures of an image model are scikit-learn's digits enlarged to its shape, two or three in each, and drawn
patterns; those of a sound model are pairs of the tones that the package synthesises, and silence.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from sklearn.datasets import load_digits

from vae_bss_tf.audio.context import ContextNetwork
from vae_bss_tf.config import AudioConfig
from vae_bss_tf.datasets import load_bank
from vae_bss_tf.datasets import sound_mixtures as audio_mixtures
from vae_bss_tf.errors import run_command
from vae_bss_tf.runtime import load


def golden_mixtures(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Returns float32 `[8, *shape]` in [0, 1]: four pairs of digits, two of three, a cross, silence."""
    height, width = shape
    inner = (round(height * 5 / 7), round(width * 5 / 7))
    digits = []
    for image in load_digits().images[10:24] / 16:
        enlarged = ndimage.zoom(image, (inner[0] / 8, inner[1] / 8), order=1)
        before = ((height - inner[0]) // 2, (width - inner[1]) // 2)
        after = (height - inner[0] - before[0], width - inner[1] - before[1])
        digits.append(np.pad(enlarged, list(zip(before, after, strict=True))))
    cross = np.zeros(shape)
    cross[height // 2] = cross[:, width // 2] = 0.5
    pairs = [(digits[2 * i] + digits[2 * i + 1]) / 2 for i in range(4)]
    triples = [sum(digits[8 + 3 * i : 11 + 3 * i]) / 3 for i in range(2)]
    return np.clip(np.stack([*pairs, *triples, cross, np.zeros(shape)]), 0, 1).astype(np.float32)


def golden_spectrograms(audio: AudioConfig) -> npt.NDArray[np.float32]:
    """Returns float32 `[8, frames, bins]` in [0, 1]: seven pairs of tones, silence."""
    bank = load_bank("tones", "test", audio=audio)
    tones = audio_mixtures.evaluation_mixtures(bank, audio, num_mixed=(2,), num_mixtures=7).mixtures
    return np.concatenate([tones, np.zeros((1, *tones.shape[1:]), np.float32)])


def golden_sources(audio: AudioConfig) -> npt.NDArray[np.float32]:
    """Returns float32 `[samples, 2, 1]`: four seconds of two instruments' notes, exchanged for the third of them."""
    time = np.arange(int(4 * audio.sample_rate)) / audio.sample_rate
    low, high = (
        sum(np.sin(2 * np.pi * n * pitch * time) / n**decay for n in range(1, 5)) * np.exp(-3 * (time % length))
        for pitch, decay, length in ((147.0, 1.0, 0.5), (392.0, 2.0, 0.8))
    )
    sources = np.stack([low, high], axis=1)
    third = slice(2 * len(time) // 4, 3 * len(time) // 4)
    sources[third] = sources[third, ::-1].copy()
    return (0.2 * sources[:, :, np.newaxis]).astype(np.float32)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="the run that the shipped model was exported from")
    parser.add_argument("--name", required=True, help="name of its folder in saved_models")
    options = parser.parse_args()

    def write() -> None:
        model = load(options.run)
        preset = model.metadata.preset
        audio = None if preset is None else preset.audio
        mixtures = golden_mixtures(model.metadata.input_shape) if audio is None else golden_spectrograms(audio)
        path = Path(__file__).with_name(f"{options.name}.npz")
        np.savez_compressed(path, mixtures=mixtures, **model.outputs(mixtures))
        print(f"wrote {path}")
        context = None if audio is None else ContextNetwork.load(options.run, audio)
        if audio is not None and context is not None:
            path = path.with_stem(f"{options.name}-context")
            sources = golden_sources(audio)
            np.savez_compressed(path, sources=sources, corrected=np.concatenate(list(context.corrected([sources]))))
            print(f"wrote {path}")

    return run_command(write)


if __name__ == "__main__":
    sys.exit(main())
