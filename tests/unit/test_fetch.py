import numpy as np
import pytest
import tensorflow_datasets as tfds

from vae_bss_tf.datasets import fetch
from vae_bss_tf.errors import DataError


@pytest.mark.parametrize("dataset", ["mnist", "fashion-mnist"])
def test_images_come_as_tensorflow_datasets_gives_them(dataset, monkeypatch, tmp_path):
    monkeypatch.setattr(fetch, "_check_network", lambda *_: None)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with tfds.testing.mock_data(num_examples=7):
        images, labels = fetch.images(dataset, "test")
    assert images.shape == (7, 28, 28)
    assert images.dtype == np.uint8
    assert labels.shape == (7,)
    assert labels.dtype == np.int64
    assert labels.max() <= 9


def test_a_fetch_that_breaks_off_names_the_ways_out(monkeypatch):
    monkeypatch.setattr(fetch, "_check_network", lambda *_: None)

    def break_off(self, **_):
        raise ConnectionError("reset by peer")

    # Undone before the mock is: the mock's own method must not stay behind.
    with tfds.testing.mock_data(num_examples=1), monkeypatch.context() as patch:
        patch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", break_off)
        with pytest.raises(DataError, match=r"ConnectionError.*--data-dir.*--dataset digits"):
            fetch.images("mnist", "train")
