"""The C program, built against LiteRT's C library, gives what Python gives."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vae_bss_tf.runtime import load

PROGRAM = Path(__file__).resolve().parents[2] / "deploy/edge/separate.c"


@pytest.fixture(scope="module")
def separate(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    spec = importlib.util.find_spec("ai_edge_litert")
    library = Path(spec.origin).parent / "libLiteRt.so"
    if compiler is None or not library.is_file():
        pytest.skip("needs a C compiler and LiteRT's C library")
    built = tmp_path_factory.mktemp("edge") / "separate"
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", f"-Wl,-rpath,{library.parent}"]
    subprocess.run([compiler, *flags, PROGRAM, library, "-o", built], check=True)
    return lambda *arguments: subprocess.run([built, *arguments], capture_output=True, text=True, check=False)


def test_the_python_program_equals_the_package_and_refuses_in_one_line(exported, mixtures, tmp_path):
    def run(*names):
        words = [sys.executable, PROGRAM.with_suffix(".py"), exported / "float32.tflite", *names]
        return subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)

    np.save(tmp_path / "mixtures.npy", mixtures)
    assert run("mixtures.npy", "sources.npy").returncode == 0
    expected = load(exported / "float32.tflite").separate(mixtures)
    np.testing.assert_allclose(np.load(tmp_path / "sources.npy"), expected, atol=1e-5)
    np.savez(tmp_path / "archive.npz", mixtures)
    (tmp_path / "empty.npy").touch()
    for names in (("archive.npz", "out.npy"), ("empty.npy", "out.npy"), ("mixtures.npy", "none/out.npy")):
        done = run(*names)
        assert done.returncode == 2
        told = [line for line in done.stderr.splitlines() if not line.startswith("INFO: ")]  # TensorFlow Lite's own
        assert len(told) == 1
        assert told[0].startswith("error: ")


@pytest.mark.parametrize("name", ["float32", "float16", "dynamic_int8", "full_int8"])
def test_the_c_program_equals_python(name, separate, exported, mixtures, tmp_path):
    path = exported / f"{name}.tflite"
    for mixture in mixtures[[0, -2, -1]]:
        mixture.tofile(tmp_path / "mixture.f32")
        done = separate(path, tmp_path / "mixture.f32", tmp_path / "sources.f32")
        assert done.returncode == 0, done.stderr
        found = np.fromfile(tmp_path / "sources.f32", np.float32).reshape(2, 8, 8)
        np.testing.assert_allclose(found, load(path).separate(mixture), atol=1e-5)


def test_the_c_program_refuses_what_it_cannot_read(separate, exported, mixtures, tmp_path):
    mixtures[:2].tofile(tmp_path / "two.f32")
    (tmp_path / "garbage.tflite").write_bytes(b"garbage" * 99)
    for name, bad in (("nan", np.nan), ("loud", 1.5)):
        np.full_like(mixtures[0], bad).tofile(tmp_path / f"{name}.f32")
    outside = "NaN or a value outside [0, 1]"
    for arguments, message in (
        ([exported / "float32.tflite", tmp_path / "two.f32", tmp_path / "out"], "another size"),
        ([exported / "float32.tflite", tmp_path / "none.f32", tmp_path / "out"], "cannot be opened"),
        ([exported / "float32.tflite", tmp_path / "nan.f32", tmp_path / "out"], outside),
        ([exported / "float32.tflite", tmp_path / "loud.f32", tmp_path / "out"], outside),
        ([tmp_path / "garbage.tflite", tmp_path / "two.f32", tmp_path / "out"], "model cannot be read"),
        ([], "usage"),
    ):
        done = separate(*arguments)
        assert done.returncode == 2
        assert message in done.stderr
    assert not (tmp_path / "out").exists()
