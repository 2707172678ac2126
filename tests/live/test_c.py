"""The C program for sound: equal to Python, no memory taken while it runs, clean under the address sanitiser."""

import importlib.util
import itertools
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vae_bss_tf.live.runtime import LiveSeparator, load

PROGRAM = Path(__file__).resolve().parents[2] / "deploy/edge/live.c"
COUNTER = r"""
#include <stdio.h>
#include <stdlib.h>
static long calls;
void* __real_malloc(size_t);
void* __wrap_malloc(size_t n) { ++calls; return __real_malloc(n); }
__attribute__((destructor)) static void tell(void) { fprintf(stderr, "malloc called %ld times\n", calls); }
"""


def built(folder, *flags):
    compiler = shutil.which("cc") or shutil.which("gcc")
    spec = importlib.util.find_spec("ai_edge_litert")
    library = Path(spec.origin).parent / "libLiteRt.so"
    if compiler is None or not library.is_file():
        pytest.skip("needs a C compiler and LiteRT's C library")
    program = folder / "live"
    strict = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", f"-Wl,-rpath,{library.parent}"]
    subprocess.run([compiler, *strict, *flags, PROGRAM, library, "-o", program], check=True)
    return program


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return built(tmp_path_factory.mktemp("c"))


def run(program, model, sound, kind="f32"):
    done = subprocess.run([program, model, kind], input=sound.tobytes(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return np.frombuffer(done.stdout, sound.dtype).reshape(-1, 2).T


@pytest.mark.parametrize("name", ["float32", "float16", "dynamic_int8", "full_int8"])
@pytest.mark.parametrize("left", [0, 37])
def test_the_c_program_equals_python(name, left, program, live_export, sound):
    sound = sound[: len(sound) // 88 * 88 - 88 + left]
    separator = LiveSeparator(load(live_export / f"{name}.tflite"))
    expected = np.concatenate([separator.process(sound), separator.finish()], axis=1)
    np.testing.assert_allclose(run(program, live_export / f"{name}.tflite", sound), expected, atol=1e-5)


def test_a_hundred_random_portions_of_the_input_equal_python(program, live_export, sound):
    model = live_export / "float32.tflite"
    sound = sound[:8_000]
    separator = LiveSeparator(load(model))
    expected = np.concatenate([separator.process(sound), separator.finish()], axis=1)
    for seed in range(10):  # eleven portions each
        ends = np.sort(np.random.default_rng(seed).integers(0, sound.nbytes, 10))  # within a sample, too
        with subprocess.Popen([program, model, "f32"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            for first, end in itertools.pairwise([0, *ends, sound.nbytes]):
                process.stdin.write(sound.tobytes()[first:end])
                process.stdin.flush()
            found = np.frombuffer(process.communicate()[0], np.float32).reshape(-1, 2).T
        assert process.returncode == 0
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_two_minutes_equal_python(program, live_export, sound):
    sound = np.tile(sound, 60)
    separator = LiveSeparator(load(live_export / "float32.tflite"))
    expected = np.concatenate([separator.process(sound), separator.finish()], axis=1)
    np.testing.assert_allclose(run(program, live_export / "float32.tflite", sound), expected, atol=1e-5)


def test_integers_come_and_go(program, live_export, sound):
    integers = np.round(sound * 32_767).astype(np.int16)
    separator = LiveSeparator(load(live_export / "float32.tflite"))
    given = integers.astype(np.float32) / 32_768
    expected = np.concatenate([separator.process(given), separator.finish()], axis=1)
    found = run(program, live_export / "float32.tflite", integers, "s16")
    np.testing.assert_allclose(found / 32_767, expected, atol=2e-5)


def test_the_program_takes_no_memory_while_it_runs(live_export, sound, tmp_path):
    """Its own calls are counted. LiteRT takes and frees small blocks in each call, so there the peak is compared."""
    (tmp_path / "counter.c").write_text(COUNTER)
    program = built(tmp_path, "-Wl,--wrap=malloc", str(tmp_path / "counter.c"))
    source = PROGRAM.read_text()
    assert not re.search(r"\b(calloc|realloc|strdup|alloca)\(", source)
    peaks = []
    for repeated in (1, 40):
        code = (
            "import resource, subprocess, sys\n"
            "done = subprocess.run(sys.argv[1:], stdin=sys.stdin, capture_output=True)\n"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, done.stderr.decode())"
        )
        sound.tofile(tmp_path / "in.f32")
        (tmp_path / "in.f32").write_bytes((tmp_path / "in.f32").read_bytes() * repeated)
        with (tmp_path / "in.f32").open("rb") as file:
            done = subprocess.run([sys.executable, "-c", code, program, live_export / "float32.tflite", "f32"],
                                  stdin=file, capture_output=True, text=True, check=True)  # fmt: skip
        assert "malloc called 2 times" in done.stdout
        peaks.append(int(done.stdout.split()[0]))
    assert peaks[1] - peaks[0] < 2_000  # KiB, after 80 s of sound against 2


def test_the_address_sanitiser_finds_nothing(live_export, sound, tmp_path):
    program = built(tmp_path, "-fsanitize=address", "-g")
    run(program, live_export / "float32.tflite", sound[:5_000])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e9])
def test_a_sample_that_is_no_number_ends_it(bad, program, live_export, sound):
    """It would stay in the state, and no sample after it would be one."""
    samples = sound[:3_000].copy()
    samples[1_000] = bad
    words = [program, live_export / "float32.tflite", "f32"]
    done = subprocess.run(words, input=samples.tobytes(), capture_output=True, check=False)
    assert done.returncode == 2
    assert b"a sample is NaN or beyond 2^31" in done.stderr
    assert np.isfinite(np.frombuffer(done.stdout, np.float32)).all()


def test_what_it_cannot_read_gets_one_line(program, live_export, sound, tmp_path):
    (tmp_path / "garbage.tflite").write_bytes(b"garbage" * 99)
    unreadable = subprocess.run(
        ["bash", "-c", f"{program} {live_export / 'float32.tflite'} s16 < {tmp_path}"], capture_output=True, check=False
    )
    assert unreadable.returncode == 2
    assert b"standard input cannot be read" in unreadable.stderr
    for arguments, message in (
        ([], "usage"),
        ([live_export / "float32.tflite", "u8"], "usage"),
        ([tmp_path / "garbage.tflite", "f32"], "model cannot be read"),
        (["saved_models/duets/full_int8.tflite", "f32"], "no live separator"),
    ):
        done = subprocess.run([program, *arguments], input=b"", capture_output=True, check=False,
                              cwd=Path(__file__).parents[2])  # fmt: skip
        assert done.returncode == 2
        assert message in done.stderr.decode()
