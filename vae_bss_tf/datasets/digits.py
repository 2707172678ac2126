"""The 1,797 handwritten digits of 8 x 8 pixels that ship inside scikit-learn."""

from pathlib import Path

import numpy as np

from vae_bss_tf.datasets.bank import SourceBank
from vae_bss_tf.errors import DataError

_SPLIT_BOUNDS = {"train": (0, 1257), "validation": (1257, 1437), "test": (1437, 1797)}
_SEED = 0  # of their order: the one that every result was measured with


def load(split: str, data_dir: Path | None) -> SourceBank:
    """Loads a split: 1,257 digits to train on, 180 for validation, 360 for the test, in a fixed random order.

    Args:
        split: "train", "validation" or "test".
        data_dir: Must be None: the digits come with scikit-learn.

    Returns:
        uint8 `[num_items, 8, 8]` from 0 to 16, labels 0 to 9.

    Raises:
        DataError: A data folder is given.
    """
    if data_dir is not None:
        raise DataError(
            "the digits ship with scikit-learn and take no --data-dir; leave it out, or name another --dataset."
        )
    from sklearn.datasets import load_digits

    digits = load_digits()
    first, end = _SPLIT_BOUNDS[split]
    order = np.random.default_rng(_SEED).permutation(len(digits.images))[first:end]
    return SourceBank(
        "digits", split, digits.images[order].astype(np.uint8), digits.target[order].astype(np.int64), 16.0
    )
