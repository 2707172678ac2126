"""Starting TensorFlow without the lines that it logs while it starts."""

import os
import sys
from types import ModuleType


def import_tensorflow() -> ModuleType:
    """Imports TensorFlow and finds its devices; what its C++ libraries log meanwhile goes nowhere.

    They write to the process' standard error itself, before any setting of a log level counts. Meant for commands: a
    library leaves its host's standard error alone.

    Returns:
        The module `tensorflow`.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" in sys.modules:
        return sys.modules["tensorflow"]
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        import tensorflow

        tensorflow.config.list_physical_devices()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
    tensorflow.get_logger().setLevel("ERROR")
    return tensorflow
