"""The live separators that ship: their files say what their weights say, and they separate the sample."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.sample import duet
from export.live import gate
from training.live.trainer import load_model
from vae_bss_tf import metrics
from vae_bss_tf.files import sha256
from vae_bss_tf.live.runtime import LiveSeparator, load

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDERS = sorted(path.parent for path in (REPOSITORY / "saved_models").glob("live*/manifest.json"))
FILES = [folder / entry["path"] for folder in FOLDERS
         for entry in json.loads((folder / "manifest.json").read_text())["formats"].values()]  # fmt: skip


@functools.cache
def of_weights(folder):
    """Five seconds of sound, and what the model of a folder's weights says of them."""
    model = load_model(folder)
    sound = gate.program(model.config.sample_rate)[: 5 * 11_025]
    return sound, gate.offline(model, sound)


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_a_file_says_what_the_weights_say(file):
    manifest = json.loads((file.parent / "manifest.json").read_text())
    entry = next(entry for entry in manifest["formats"].values() if entry["path"] == file.name)
    assert sha256(file) == entry["sha256"]
    assert file.stat().st_size < 600_000
    sound, expected = of_weights(file.parent)
    separator = LiveSeparator(load(file))
    found = np.concatenate([separator.process(sound), separator.finish()], axis=1)
    found = found[:, : expected.shape[1]]
    error = np.sum((found - expected) ** 2) / np.sum(expected**2)
    assert error < (1e-9 if "float32" in file.name else 1e-2)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_full_int8_is_small_and_loses_half_a_decibel_at_most(folder):
    assert (folder / "full_int8.tflite").stat().st_size <= 500_000
    scores = []
    stems = duet()
    sound = stems.sum(axis=0).astype(np.float32)
    live = LiveSeparator(load(folder / "full_int8.tflite"))
    of_file = np.concatenate([live.process(sound), live.finish()], axis=1)
    for found in (gate.offline(load_model(folder), np.append(sound, np.zeros(2 * live.delay, np.float32))), of_file):
        matched = found[:, live.delay : live.delay + len(sound)]
        ratios = metrics.pairwise_si_bss_eval(matched[np.newaxis], stems[np.newaxis]).sdr
        assignment = metrics.match_sources(ratios)
        scores.append(np.take_along_axis(ratios, assignment[:, np.newaxis], axis=1).mean())
    assert scores[1] > scores[0] - 0.5
