"""Files of pictures that would be separated into files of the same names."""

import bisect
import collections
import itertools
import os
from collections.abc import Iterable, Iterator

from vae_bss_tf.bulk.work import picture_files
from vae_bss_tf.errors import DataError
from vae_bss_tf.pictures import ARRAY_SUFFIXES


def refused(paths: Iterable[str]) -> dict[str, str]:
    """Finds the files of which one would replace the outputs of another.

    The pictures of an array have its name and their number in theirs: the first of `scan.npy` becomes
    `scan_0_source1.png`, as `scan_0.png` does. Arrays are opened only where another file's name begins so.

    Args:
        paths: The places of all files. Of those that differ in their suffix alone the first counts; the job refuses
            the others.

    Returns:
        Why a file is not to be separated, by its place.
    """
    first: dict[str, str] = {}
    for path in sorted(paths):
        first.setdefault(os.path.splitext(path)[0], path)
    reasons: dict[str, str] = {}
    claims: dict[str, list[str]] = collections.defaultdict(list)
    for path in sorted(_suspects(first)):
        folder = path.rpartition("/")[0]
        try:
            for name in picture_files(path, num_sources=1):
                claims[f"{folder}/{name}"].append(path)
        except DataError as error:
            reasons[path] = str(error)
    for sharing in claims.values():
        for path, other in itertools.permutations(sharing, 2):
            reasons[path] = f"{path} would have outputs of the same names as {other}; rename one of them."
    return reasons


def _suspects(paths: dict[str, str]) -> set[str]:
    """The arrays beside which there are files whose names begin as those of their pictures, and these files."""
    names = sorted(paths)
    suspects: set[str] = set()
    for name, path in paths.items():
        if path.lower().endswith(ARRAY_SUFFIXES):
            beside = {paths[other] for other in _beginning(names, f"{name}_")}
            suspects |= beside | {path} if beside else set()
    return suspects


def _beginning(names: list[str], start: str) -> Iterator[str]:
    """The names of a sorted list that begin so, in the same folder."""
    for index in range(bisect.bisect_left(names, start), len(names)):
        if not names[index].startswith(start):
            return
        if "/" not in names[index][len(start) :]:
            yield names[index]
