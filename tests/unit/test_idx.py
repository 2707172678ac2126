import gzip
import struct

import numpy as np
import pytest

from vae_bss_tf.datasets import idx, load_bank
from vae_bss_tf.errors import ConfigError, DataError


def idx_bytes(array):
    return struct.pack(">I", 2048 + array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (6, 28, 28), np.uint8)


def test_reads_plain_and_gzipped_files_alike(images, tmp_path):
    plain, zipped = tmp_path / "a", tmp_path / "a.gz"
    plain.write_bytes(idx_bytes(images))
    zipped.write_bytes(gzip.compress(idx_bytes(images)))
    np.testing.assert_array_equal(idx.read_idx(plain, 2051), images)
    np.testing.assert_array_equal(idx.read_idx(zipped, 2051), images)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-1], "needs"),
        (lambda content: content + b"x", "needs"),
        (lambda content: struct.pack(">I", 2049) + content[4:], "begins with"),
        (lambda content: content[:10], "header"),
        (lambda content: b"", "begins with"),
    ],
)
def test_damaged_files_are_refused(images, tmp_path, damage, message):
    for path, wrap in ((tmp_path / "a", bytes), (tmp_path / "a.gz", gzip.compress)):
        path.write_bytes(wrap(damage(idx_bytes(images))))
        with pytest.raises(DataError, match=message):
            idx.read_idx(path, 2051)


def test_truncated_gzip_is_refused(images, tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(idx_bytes(images))[:-20])
    with pytest.raises(DataError, match="truncated"):
        idx.read_idx(path, 2051)
    path.write_bytes(b"no gzip at all")
    with pytest.raises(DataError, match="not a gzip"):
        idx.read_idx(path, 2051)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(DataError, match="no folder"):
        load_bank("mnist", "test", tmp_path / "none")
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte"):
        load_bank("mnist", "test", tmp_path)


def test_fashion_mnist_reads_the_same_format(images, tmp_path):
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(images))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.arange(6, dtype=np.uint8)))
    bank = load_bank("fashion-mnist", "test", tmp_path)
    np.testing.assert_array_equal(bank.items, images)
    assert bank.labels.tolist() == [0, 1, 2, 3, 4, 5]


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match="mnist"):
        load_bank("mnits", "test")
    with pytest.raises(ConfigError, match="split"):
        load_bank("digits", "dev")
    with pytest.raises(DataError, match="--data-dir"):
        load_bank("digits", "test", "here")
