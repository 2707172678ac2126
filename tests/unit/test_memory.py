"""Memory that a process frees and keeps."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import numpy as np
from training.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()

def fill():
    np.ones(2 << 20)  # 16 MiB, freed at once

def pages_taken():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    fill()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

fill()
print(pages_taken())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_used_again() -> None:
    """Without the setting each block is mapped anew and its pages are taken again; with it, none is."""
    taken = {
        word: int(subprocess.run([sys.executable, "-c", SCRIPT, word], capture_output=True, check=True).stdout)
        for word in ("keep", "give back")
    }
    assert taken["keep"] < 5 < taken["give back"]
