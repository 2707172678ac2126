"""MNIST and Fashion-MNIST: from their four IDX files, or through tensorflow-datasets."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vae_bss_tf.datasets import fetch
from vae_bss_tf.datasets.bank import SourceBank
from vae_bss_tf.errors import DataError

_IMAGE_MAGIC, _LABEL_MAGIC = 2051, 2049
_NUM_VALIDATION = 5_000  # the last of the training set


def load(dataset: str, split: str, data_dir: Path | None) -> SourceBank:
    """Loads a split: 55,000 images to train on, 5,000 for validation, the data set's own 10,000 for the test.

    Args:
        dataset: "mnist" or "fashion-mnist".
        split: "train", "validation" or "test".
        data_dir: Folder with the four IDX files under their usual names, gzipped or not; None fetches the data
            set through tensorflow-datasets.

    Returns:
        uint8 `[num_items, 28, 28]` from 0 to 255, labels 0 to 9, in the files' order.

    Raises:
        DataError: A file is missing, truncated or of another format, or the data set cannot be fetched.
    """
    part = "test" if split == "test" else "train"
    if data_dir is None:
        images, labels = fetch.images(dataset, part)
    else:
        prefix = "t10k" if part == "test" else "train"
        images = read_idx(find_idx(data_dir, f"{prefix}-images-idx3-ubyte"), _IMAGE_MAGIC)
        labels = read_idx(find_idx(data_dir, f"{prefix}-labels-idx1-ubyte"), _LABEL_MAGIC).astype(np.int64)
    if part == "train":
        if len(images) <= _NUM_VALIDATION:
            raise DataError(f"{dataset}: {len(images)} training images; expected more than {_NUM_VALIDATION}.")
        cut = len(images) - _NUM_VALIDATION
        chosen = slice(0, cut) if split == "train" else slice(cut, None)
        images, labels = images[chosen], labels[chosen]
    return SourceBank(dataset, split, images, labels, 255.0)


def find_idx(data_dir: Path, name: str) -> Path:
    """Finds an IDX file, gzipped or not.

    Args:
        data_dir: Folder to look in.
        name: The file's name without ".gz".

    Returns:
        Its path.

    Raises:
        DataError: The folder or the file is not there.
    """
    if not data_dir.is_dir():
        raise DataError(f"no folder {data_dir}; give --data-dir the folder that holds {name}.gz.")
    for path in (data_dir / f"{name}.gz", data_dir / name):
        if path.is_file():
            return path
    raise DataError(f"{data_dir} holds neither {name}.gz nor {name}; copy the four IDX files there.")


def read_idx(path: Path, magic: int) -> npt.NDArray[np.uint8]:
    """Reads an IDX file of unsigned bytes (format: LeCun, Cortes, Burges, the MNIST database).

    Args:
        path: The file, gzipped when its name ends in ".gz".
        magic: The number it must begin with: 2051 for images, 2049 for labels.

    Returns:
        uint8 array of the shape that the header states.

    Raises:
        DataError: The file is not gzip, has another magic number, or is shorter or longer than its header says.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is truncated or not a gzip file ({error}); fetch it again.") from error
    found = struct.unpack(">I", content[:4])[0] if len(content) >= 4 else None
    if found != magic:
        raise DataError(f"{path} begins with {found}; an IDX file of this kind begins with {magic}.")
    rank = magic & 0xFF
    header = 4 + 4 * rank
    if len(content) < header:
        raise DataError(f"{path} ends inside its header; fetch it again.")
    shape = struct.unpack(f">{rank}I", content[4:header])
    if len(content) - header != math.prod(shape):
        raise DataError(
            f"{path} holds {len(content) - header:,} bytes of data; its header {shape} needs {math.prod(shape):,}. "
            "Fetch it again."
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
