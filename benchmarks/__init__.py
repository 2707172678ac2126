"""What is claimed about speed, size and quality, as commands: each prints a table and writes JSON."""

import os
from pathlib import Path
from typing import Any

from vae_bss_tf.files import write_json


def write_results(path: Path, **found: Any) -> None:
    """Writes what a benchmark found as JSON, with the number of processors that it had, and says where."""
    write_json(path, {"cores": len(os.sched_getaffinity(0)), **found})
    print(f"written: {path}")
