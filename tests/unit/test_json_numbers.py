"""The fast writer of float32 arrays as JSON."""

import json

import numpy as np
import pytest

from vae_bss_tf.runtime.remote.json_numbers import list_of_objects, nested_lists


@pytest.fixture
def values():
    """float32 of every size, subnormal and signed zeros included."""
    bits = np.random.default_rng(0).integers(0, 2**32, 6_000, np.uint32)
    found = bits.view(np.float32)
    return np.concatenate([found[np.isfinite(found)][:5_000], [0, -0.0, 1, 2**24 + 1, 1e-45, 3.4e38]]).astype(
        np.float32
    )


def test_every_number_comes_back(values):
    assert (np.asarray(json.loads(nested_lists(values)), np.float32) == values).all()


@pytest.mark.parametrize("shape", [(), (6,), (2, 3), (1, 3, 2), (6, 1), (0, 3), (2, 0)])
def test_lists_as_json_has_them(shape, values):
    array = values[: int(np.prod(shape))].reshape(shape)
    assert np.asarray(json.loads(nested_lists(array)), np.float32).tolist() == array.tolist()


def test_objects_as_json_has_them(values):
    arrays = {"a": values[:24].reshape(2, 3, 4), '50 % "b"': values[24:26], "c": values[26:32].reshape(2, 3)}
    rows = json.loads(list_of_objects(arrays))
    assert [list(row) for row in rows] == [list(arrays)] * 2
    for name, array in arrays.items():
        assert (np.asarray([row[name] for row in rows], np.float32) == array).all()


def test_not_a_number_is_said_as_json_readers_know_it():
    array = np.array([[np.nan, 1.0], [np.inf, -np.inf]], np.float32)
    assert nested_lists(array) == "[[NaN, 1.0], [Infinity, -Infinity]]"
    np.testing.assert_array_equal([row["a"] for row in json.loads(list_of_objects({"a": array}))], array)
