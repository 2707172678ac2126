"""Which precision "auto" is."""

import time

import pytest
import tensorflow as tf

from training import precision


@pytest.fixture
def measured_anew():
    precision.faster_in_bfloat16.cache_clear()
    yield
    precision.faster_in_bfloat16.cache_clear()


@pytest.mark.parametrize("slow", ["float32", "bfloat16"])
def test_the_precision_is_the_one_that_convolves_faster(slow, measured_anew, monkeypatch):
    convolve = tf.nn.conv2d

    def slowed(values, *others, **options):
        time.sleep(0.05 if values.dtype.name == slow else 0)
        return convolve(values[:1], *others, **options)

    monkeypatch.setattr(tf.nn, "conv2d", slowed)
    assert precision.faster_in_bfloat16() == (slow == "float32")


@pytest.mark.parametrize(
    ("flags", "faster", "expected"),
    [
        ("fpu avx512f", True, "float32"),
        ("fpu avx512f avx512_bf16", False, "float32"),
        ("fpu avx512f avx512_bf16", True, "mixed_bfloat16"),
    ],
)
def test_bfloat16_is_taken_where_the_processor_has_it_and_is_faster_in_it(flags, faster, expected, monkeypatch):
    monkeypatch.setattr("pathlib.Path.read_text", lambda path, **options: f"flags\t\t: {flags}\n")
    monkeypatch.setattr(precision, "faster_in_bfloat16", lambda: faster)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    assert precision.resolved_precision("auto") == expected
    assert precision.resolved_precision("mixed_float16") == "mixed_float16"
