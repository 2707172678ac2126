"""A folder of one's own pictures: mixtures as they are, or single sources to be mixed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vae_bss_tf.config import DataConfig
from vae_bss_tf.datasets.bank import SourceBank
from vae_bss_tf.datasets.decoded import decoded
from vae_bss_tf.datasets.splits import has_splits, split_folder
from vae_bss_tf.errors import DataError
from vae_bss_tf.pictures.reading import Picture, find, fitted, pictures_in, read

_FULL_SCALE = np.iinfo(np.uint16).max


def load(
    split: str, data_dir: Path | None, data: DataConfig | None = None, input_shape: tuple[int, ...] | None = None
) -> SourceBank:
    """Loads a split of a folder of pictures, decoded once into the cache.

    Split as `splits.split_folder` splits: by `train/`, `validation/` and `test/`, or by a hash of the files' names.

    Args:
        split: "train", "validation" or "test".
        data_dir: The folder; those inside it are searched too.
        data: Size and channels that the pictures are brought to, and whether they are mixtures (`num_mixed` is `(1,)`)
            or sources to be mixed; None takes mixtures as they are.
        input_shape: The shape of a picture; None takes that of the first one.

    Returns:
        uint16 `[num_pictures, *input_shape]`, memory-mapped, of full scale 65,535: pictures of 8 and of 16 bits are
        held without rounding. The label is the folder that a picture is in.

    Raises:
        DataError: The folder is missing or holds too few pictures to split; or a picture is missing, damaged, or of
            another size or other channels than expected.
    """
    folder, data = _folder(data_dir), data or DataConfig("images", (1,))
    shape = input_shape or picture_shape(folder, data)
    pictures = split_folder(folder, split, _pictures, _identity, "pictures")
    resize, convert = bool(data.size), bool(data.channels)

    def decode(picture: Picture) -> Iterator[npt.NDArray[np.uint16]]:
        values = fitted(read(picture), shape, resize=resize, convert=convert, name=picture.name)
        yield np.round(values * _FULL_SCALE).astype(np.uint16).reshape(-1)

    identity = ["images", shape, resize, convert, *_cache_identity(pictures)]
    items, _ = decoded(pictures, decode, lambda _: 1, identity, int(np.prod(shape)), np.uint16, "picture")
    parents = [picture.path.parent for picture in pictures]
    names = sorted(set(parents))
    labels = np.asarray([names.index(parent) for parent in parents], np.int64)
    return SourceBank(
        "images",
        split,
        items.reshape(-1, *shape),
        labels,
        float(_FULL_SCALE),
        has_truth=data.num_mixed != (1,),
        class_names=tuple(parent.name for parent in names),
    )


def picture_shape(data_dir: Path | None, data: DataConfig) -> tuple[int, ...]:
    """Finds the shape that the pictures of a folder are brought to: the settings', or that of the first picture.

    Args:
        data_dir: The folder.
        data: Size and channels wanted.

    Returns:
        `(height, width)` for grey, `(height, width, 3)` for colour.

    Raises:
        DataError: The folder is missing or holds no picture, or the first one cannot be read.
    """
    folder = _folder(data_dir)
    first = read(pictures_in(find(folder / "train" if has_splits(folder) else folder)[0])[0])
    channels = data.channels or (3 if first.ndim == 3 else 1)
    return *(data.size or first.shape[:2]), *([3] if channels == 3 else [])


def _folder(data_dir: Path | None) -> Path:
    if data_dir is None:
        raise DataError("images needs --data-dir, a folder of pictures; --dataset digits needs no file.")
    if not data_dir.is_dir():
        raise DataError(f"no folder {data_dir}; give --data-dir the folder that holds the pictures.")
    return data_dir


def _pictures(folder: Path) -> list[Picture]:
    return [picture for path in find(folder) for picture in pictures_in(path)]


def _identity(picture: Picture, folder: Path) -> str:
    return f"{picture.path.relative_to(folder).as_posix()}:{picture.member}:{picture.index}"


def _cache_identity(pictures: list[Picture]) -> list[Any]:
    try:
        files = {path: path.stat() for path in dict.fromkeys(picture.path for picture in pictures)}
    except OSError as error:
        raise DataError(f"{error.filename} is not there; a picture must stay where it is while it is read.") from error
    described = [(str(path.resolve()), found.st_size, found.st_mtime_ns) for path, found in files.items()]
    return [described, [(picture.member, picture.index) for picture in pictures]]
