"""Starting TensorFlow and LiteRT without the lines that they log while they start."""

import contextlib
import os
import sys
from collections.abc import Iterator
from types import ModuleType


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Drops what is written to the process' standard error, by libraries in C++ too.

    They write to it themselves, before any setting of a log level counts. Meant for commands: a library leaves its
    host's standard error alone.

    Yields:
        None.
    """
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def import_tensorflow() -> ModuleType:
    """Imports TensorFlow and finds its devices, `silenced`.

    Returns:
        The module `tensorflow`.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" in sys.modules:
        return sys.modules["tensorflow"]
    with silenced():
        import tensorflow

        tensorflow.config.list_physical_devices()
    tensorflow.get_logger().setLevel("ERROR")
    return tensorflow
