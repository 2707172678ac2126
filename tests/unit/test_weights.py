"""Files of weights: what is read is what was written, and what is damaged is refused."""

from pathlib import Path

import numpy as np
import pytest

from vae_bss_tf.errors import CheckpointError
from vae_bss_tf.weights import halved, read_weights, write_weights

KERNEL, BIAS = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3), np.array([1.0, 1e6], np.float32)
SHAPES = {"kernel": (2, 3), "bias": (2,)}


def test_matrices_are_halved_and_vectors_kept(tmp_path: Path) -> None:
    write_weights(tmp_path / "weights.npz", halved({"kernel": KERNEL, "bias": BIAS}))
    found = dict(read_weights(tmp_path / "weights.npz", SHAPES))
    np.testing.assert_array_equal(found["kernel"], KERNEL.astype(np.float16))
    np.testing.assert_array_equal(found["bias"], BIAS)
    assert {value.dtype for value in found.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("value", [1e6, np.nan, -np.inf])
def test_what_float16_does_not_hold_is_refused(value: float) -> None:
    with pytest.raises(CheckpointError, match="kernel has values that float16 does not hold"):
        halved({"kernel": np.full((2, 2), value, np.float32)})


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"kernel": KERNEL.T, "bias": BIAS}, "does not hold kernel"),
        ({"kernel": KERNEL, "bias": BIAS * np.float32(np.nan)}, "does not hold bias"),
        ({"kernel": KERNEL}, r"cannot be read \(KeyError\)"),
        ({"kernel": np.full((2, 3), {}), "bias": BIAS}, r"cannot be read \(ValueError\)"),  # a pickle
    ],
)
def test_what_is_not_the_weights_is_refused(arrays: dict, message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "weights.npz", **arrays)
    with pytest.raises(CheckpointError, match=message):
        dict(read_weights(tmp_path / "weights.npz", SHAPES))


def test_a_file_that_declares_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "weights.npz", kernel=np.zeros((1_000, 1_000), np.float32))
    with pytest.raises(CheckpointError, match="declares more"):
        dict(read_weights(tmp_path / "weights.npz", {"kernel": (1_000, 1_000)}))


def test_a_file_that_is_cut_or_missing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    write_weights(path, {"kernel": KERNEL, "bias": BIAS})
    path.write_bytes(path.read_bytes()[:-50])
    for _ in range(2):
        with pytest.raises(CheckpointError, match="cannot be read"):
            dict(read_weights(path, SHAPES))
        path.unlink(missing_ok=True)
