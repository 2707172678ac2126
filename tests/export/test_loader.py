"""The C++ program, built against the TensorFlow wheel's own loader of SavedModels, gives what the Keras model gives."""

import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import sizing
from export.writers import saved_model
from vae_bss_tf.audio import spectrogram
from vae_bss_tf.config import AudioConfig, ModelConfig
from vae_bss_tf.model import MultiSourceVAE
from vae_bss_tf.runtime import OUTPUTS

LOADER = Path(__file__).resolve().parents[2] / "deploy/serving/loader"


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """Builds both programs; returns what runs one of them."""
    missing = [program for program in ("g++", "make") if shutil.which(program) is None]
    if missing:
        pytest.skip(f"needs {' and '.join(missing)}")
    build = tmp_path_factory.mktemp("loader")
    command = [
        "make",
        "-j2",
        "-C",
        LOADER,
        f"PYTHON={sys.executable}",
        f"BUILD={build}",
        "CXXFLAGS=-O0 -Wall -Wextra -Werror",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    def run(name, *arguments):
        return subprocess.run([build / name, *map(str, arguments)], capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="module")
def separate(programs):
    return functools.partial(programs, "separate")


def outputs(folder):
    return {path.stem: np.load(path) for path in folder.glob("*.npy")}


@pytest.mark.parametrize("count", [1, 3, 42])
def test_the_program_equals_the_keras_model(count, separate, exported, model, mixtures, tmp_path):
    np.save(tmp_path / "mixtures.npy", mixtures[-count:])
    done = separate(exported / "saved_model/1", "separate", tmp_path / "mixtures.npy", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    found, expected = outputs(tmp_path / "out"), model({"mixture": mixtures[-count:]})
    assert set(found) == set(OUTPUTS)
    for name in OUTPUTS:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5)
    np.testing.assert_allclose(found["sources"].sum(axis=1), mixtures[-count:], atol=1e-5)


def test_it_reads_plain_values_and_runs_the_other_signatures(separate, exported, model, mixtures, tmp_path):
    mixtures[:2].tofile(tmp_path / "mixtures.f32")
    saved = exported / "saved_model/1"
    assert separate(saved, "encode", tmp_path / "mixtures.f32", tmp_path / "posterior").returncode == 0
    found = outputs(tmp_path / "posterior")
    assert set(found) == {"latent_mean", "latent_log_variance"}
    assert separate(saved, "decode", tmp_path / "posterior/latent_mean.npy", tmp_path / "out").returncode == 0
    expected = model({"mixture": mixtures[:2]})
    np.testing.assert_allclose(outputs(tmp_path / "out")["estimates"], expected["estimates"], atol=1e-5)


def test_waveforms_in_waveforms_out(separate, tmp_path):
    audio = AudioConfig(sample_rate=4_000.0, n_fft=128, hop_length=32, num_frames=8, num_bins=16, power=0.5)
    model = MultiSourceVAE(ModelConfig(input_shape=audio.feature_shape, latent_dim=3, hidden_units=(8,)))
    saved_model.write_waveform(model, audio, tmp_path / "saved")
    waveforms = np.random.default_rng(0).uniform(-1, 1, (2, audio.num_samples)).astype(np.float32)
    np.save(tmp_path / "duets.npy", waveforms)
    done = separate(tmp_path / "saved", "separate", tmp_path / "duets.npy", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    expected = spectrogram.separate_waveforms(waveforms, model.separate, audio)
    np.testing.assert_allclose(outputs(tmp_path / "out")["sources"], expected, atol=1e-5)


def test_bad_input_ends_in_one_line(separate, exported, mixtures, tmp_path):
    saved, one = exported / "saved_model/1", tmp_path / "one.npy"
    np.save(one, mixtures[:1])
    np.save(tmp_path / "flat.npy", mixtures[0])
    np.save(tmp_path / "double.npy", mixtures[:1].astype(np.float64))
    np.save(tmp_path / "fortran.npy", np.asfortranarray(mixtures[:2]))
    np.save(tmp_path / "none.npy", mixtures[:0])
    mixtures[:1].tofile(tmp_path / "long.f32")
    with (tmp_path / "long.f32").open("ab") as file:
        file.write(b"1234")
    (tmp_path / "short.npy").write_bytes(one.read_bytes()[:-4])
    (tmp_path / "header.npy").write_bytes(one.read_bytes()[:20])
    huge = one.read_bytes().replace(b"(1, 8, 8)", b"(4611686018427387905, 8, 8)")
    (tmp_path / "huge.npy").write_bytes(huge)
    shutil.copytree(saved, tmp_path / "damaged")
    (tmp_path / "damaged/saved_model.pb").write_bytes(b"garbage" * 99)
    (tmp_path / "file").write_text("")
    strings = tf.Module()
    strings.run = tf.function(lambda text: {"text": text}, input_signature=[tf.TensorSpec([None], tf.string)])
    tf.saved_model.save(strings, str(tmp_path / "strings"), signatures={"separate": strings.run})
    for arguments, message in (
        ((tmp_path, "separate", one), "is no SavedModel"),
        ((tmp_path / "damaged", "separate", one), "cannot be loaded"),
        ((saved, "seperate", one), "has no signature seperate; it has: decode encode separate serving_default"),
        ((tmp_path / "strings", "separate", one), "has not one float32 input"),
        ((saved, "separate", tmp_path / "missing.npy"), "cannot be opened"),
        ((saved, "separate", tmp_path / "flat.npy"), "has shape [8, 8]; expected [batch, 8, 8]"),
        ((saved, "separate", tmp_path / "double.npy"), "holds <f8; save it as float32"),
        ((saved, "separate", tmp_path / "fortran.npy"), "Fortran order"),
        ((saved, "separate", tmp_path / "none.npy"), "has shape [0, 8, 8]"),
        ((saved, "separate", tmp_path / "long.f32"), "has 260 bytes; expected a multiple of 256"),
        ((saved, "separate", tmp_path / "short.npy"), "another length than its header says"),
        ((saved, "separate", tmp_path / "header.npy"), "is cut short"),
        ((saved, "separate", tmp_path / "huge.npy"), "is cut short"),
    ):
        done = separate(*arguments, tmp_path / "out")
        assert done.returncode == 2, arguments
        assert message in done.stderr.splitlines()[-1]
        assert done.stderr.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "out").exists()
    done = separate(saved, "separate", one, tmp_path / "file" / "out")
    assert done.returncode == 2
    assert "cannot be made" in done.stderr
    assert separate(saved).returncode == 2


def test_the_batching_that_is_measured_is_that_of_a_deployment(separate, exported, model, mixtures, tmp_path):
    settings = sizing.parameters(3)
    assert settings == {
        "max_batch_size": 256,
        "batch_timeout_micros": settings["batch_timeout_micros"],
        "max_enqueued_batches": 100,
        "num_batch_threads": settings["num_batch_threads"],
        "allowed_batch_sizes": [1, 2, 4, 8, 16, 32, 64, 128, 256],
    }
    batched = sizing.batched(exported / "saved_model/1", tmp_path / "batched", settings)
    np.save(tmp_path / "mixtures.npy", mixtures[:3])  # which are filled up to 4
    done = separate(batched, "separate", tmp_path / "mixtures.npy", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    expected = model({"mixture": mixtures[:3]})
    for name, found in outputs(tmp_path / "out").items():
        np.testing.assert_allclose(found, expected[name], atol=1e-5)


def test_the_load_of_each_pair_is_counted(programs, exported):
    done = programs("load", exported / "saved_model/1", "separate", 1, 0.1, 1, 1, 4, 3)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["batch"], row["clients"]) for row in rows] == [(1, 1), (4, 3)]
    for row in rows:
        assert row["requests"] >= row["clients"]
        assert row["seconds"] >= 0.1
        assert 0 < row["p50_ms"] <= row["p99_ms"] <= 1e3 * row["seconds"]
        assert 50 < row["megabytes"] <= row["most_megabytes"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["separate", 1, 0.1], "usage: load"),
        (["separate", 1, 0.1, 1], "usage: load"),
        (["remix", 1, 0.1, 1, 1], "no signature remix"),
    ],
)
def test_a_load_that_cannot_be_measured_is_refused(words, message, programs, exported):
    done = programs("load", exported / "saved_model/1", *words)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
