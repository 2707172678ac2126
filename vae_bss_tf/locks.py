"""Folders held by one process at a time."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def held(folder: Path, *, wait: bool) -> Iterator[None]:
    """Holds a folder; a process that is killed holds it no more.

    Args:
        folder: The folder, which must be there.
        wait: Whether to wait until no other process holds it.

    Yields:
        None.

    Raises:
        BlockingIOError: Another process holds it, and there is no waiting.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
