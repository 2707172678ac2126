"""The ratio mask on NumPy arrays, which needs no Keras, and on tensors."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from vae_bss_tf.masking import ratio_mask, ratio_shares


@pytest.fixture
def estimates() -> np.ndarray:
    values = np.random.default_rng(0).uniform(size=(3, 2, 4, 5)).astype(np.float32)
    values[:, :, 0] = 0
    return values


@pytest.mark.parametrize("exponent", [1.0, 2.0])
def test_arrays_are_masked_as_tensors_are(estimates: np.ndarray, exponent: float) -> None:
    mixtures = np.random.default_rng(1).uniform(size=(3, 4, 5)).astype(np.float32)
    found = ratio_mask(estimates, mixtures, exponent, np)
    assert type(found) is np.ndarray
    assert found.dtype == np.float32
    of_tensors = keras.ops.convert_to_numpy(ratio_mask(keras.ops.convert_to_tensor(estimates), mixtures, exponent))
    np.testing.assert_allclose(found, of_tensors, atol=1e-7)
    np.testing.assert_allclose(found.sum(axis=1), mixtures, atol=1e-6)
    np.testing.assert_allclose(found[:, :, 0], mixtures[:, np.newaxis, 0].repeat(2, axis=1) / 2)


def test_shares_are_what_the_mixture_is_multiplied_by(estimates: np.ndarray) -> None:
    np.testing.assert_array_equal(ratio_mask(estimates, np.ones((3, 4, 5), np.float32), ops=np),
                                  ratio_shares(estimates, ops=np))  # fmt: skip


def test_masking_arrays_imports_no_keras() -> None:
    code = (
        "import sys; import numpy as np; from vae_bss_tf.masking import ratio_mask;"
        "ratio_mask(np.ones((1, 2, 3)), np.ones((1, 3)), ops=np); sys.exit('keras' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
