"""How a folder is split: by its own folders, or by a seeded hash of what is in it."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from vae_bss_tf.datasets.bank import SPLITS
from vae_bss_tf.errors import DataError

MIN_IDENTITIES = 8
_HELD_OUT_SHARE = 0.1
_SEED = 0  # of the hash that orders the identities

Item = TypeVar("Item")


def has_splits(folder: Path) -> bool:
    """Whether a folder brings its own splits, in `train/` and `test/`.

    Args:
        folder: The folder.

    Raises:
        DataError: It has `validation/` or `test/` without the others that are needed: what is held out there would be
            trained on.
    """
    standing = [split for split in SPLITS if (folder / split).is_dir()]
    missing = [split for split in ("train", "test") if split not in standing]
    if missing and standing not in ([], ["train"]):
        raise DataError(
            f"{folder} has {'/ and '.join(standing)}/ but no {'/ and no '.join(missing)}/; add what is missing, or "
            "give the folders other names to have all of it split by a hash."
        )
    return not missing


def split_folder(
    folder: Path,
    split: str,
    list_items: Callable[[Path], list[Item]],
    identity: Callable[[Item, Path], str],
    counted: str,
) -> list[Item]:
    """Lists what belongs to one split of a folder.

    The folder's own `train/`, `validation/` and `test/` are the splits where it has `train/` and `test/`; without
    `validation/` a tenth of the identities of `train/` replaces it. A folder without them is split by a seeded hash of
    the identities: a tenth each, and at least two, for validation and test. No identity is in two splits.

    Args:
        folder: The folder, which must exist.
        split: "train", "validation" or "test".
        list_items: Lists what is in a folder.
        identity: Names what of an item must not be in two splits, given the folder that it is in.
        counted: What is counted, for messages, such as "recordings of {} sources": {} is the number of identities.

    Returns:
        The items, in the order in which they are listed.

    Raises:
        DataError: There are too few identities to split, or as `has_splits`; or as `list_items`.
    """
    splits: tuple[str, ...] = SPLITS
    if has_splits(folder):
        if split == "test" or (folder / "validation").is_dir():
            return list_items(folder / split)
        folder, splits = folder / "train", SPLITS[:2]
    items = list_items(folder)
    identities = [identity(item, folder) for item in items]
    ordered = sorted(set(identities), key=lambda name: hashlib.sha256(os.fsencode(f"{_SEED}:{name}")).digest())
    if len(ordered) < MIN_IDENTITIES:
        raise DataError(
            f"{folder} holds {len(items)} {counted.format(len(ordered))}; splitting it into {', '.join(splits)} needs "
            f"at least {MIN_IDENTITIES}."
        )
    held_out = max(2, round(_HELD_OUT_SHARE * len(ordered)))
    split_of = dict.fromkeys(ordered, "train")
    for i, name in enumerate(splits[1:]):
        split_of.update(dict.fromkeys(ordered[i * held_out : (i + 1) * held_out], name))
    return [item for item, name in zip(items, identities, strict=True) if split_of[name] == split]
