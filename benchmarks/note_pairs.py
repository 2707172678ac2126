"""Makes a folder of mixtures of two notes, as recordings that are mixtures: `python -m benchmarks.note_pairs`.

    python -m benchmarks.note_pairs --data-dir NOTES --split train --count 3000 --output pairs

Each is 1.5 s of two notes of different recordings with random onsets in the first 40 % (as in the paper). Of the test
split the two sources are written beside each mixture, in the layout of `training.evaluate --truth`; of the training
split the mixtures alone are.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import soundfile

from vae_bss_tf.arguments import Parser, command
from vae_bss_tf.audio.recordings import describe, mono
from vae_bss_tf.datasets.recordings import split_files
from vae_bss_tf.errors import ConfigError

SECONDS, MAX_ONSET = 1.5, 0.4


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m benchmarks.note_pairs", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--data-dir", required=True, type=Path, help="folder of recordings of single notes")
    parser.add_argument("--split", default="train", choices=("train", "test"), help="which notes (default: train)")
    parser.add_argument("--count", type=int, default=3_000, help="mixtures to make (default: 3000)")
    parser.add_argument("--output", required=True, type=Path, help="folder to make; must not exist")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw (default: 0)")
    return parser


def _write(options: argparse.Namespace) -> None:
    if options.output.exists():
        raise ConfigError(f"{options.output} exists; choose another --output.")
    rng = np.random.default_rng(options.seed)
    files = split_files(options.data_dir, options.split)
    rates = {describe(path).sample_rate for path in files}
    if len(rates) > 1:
        raise ConfigError(f"{options.data_dir} holds recordings of {len(rates)} rates; bring them to one first.")
    rate = rates.pop()
    notes = [np.concatenate(list(mono(describe(path), rate))) for path in files]
    length = int(SECONDS * rate)
    options.output.mkdir(parents=True)
    for i in range(options.count):
        sources = np.zeros((2, length), np.float32)
        for source, drawn in zip(sources, rng.choice(len(notes), 2, replace=False), strict=True):
            onset = int(rng.integers(int(MAX_ONSET * length) + 1))
            note = notes[drawn][: length - onset]
            source[onset : onset + len(note)] = note / np.abs(note).max() / 2
        if options.split == "train":
            soundfile.write(options.output / f"pair{i:05d}.wav", sources.sum(axis=0), rate)
            continue
        folder = options.output / f"pair{i:05d}"
        folder.mkdir()
        soundfile.write(folder / "mixture.wav", sources.sum(axis=0), rate, "FLOAT")
        for k, source in enumerate(sources, 1):
            soundfile.write(folder / f"source{k}.wav", source, rate, "FLOAT")
    print(f"{options.output}: {options.count} mixtures of {len(notes)} notes, {rate} Hz")


main = command(_parser, _write)


if __name__ == "__main__":
    sys.exit(main())
