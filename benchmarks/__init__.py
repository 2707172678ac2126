"""What is claimed about speed, size and quality, as commands: each prints a table and writes JSON."""

import argparse
import os
from pathlib import Path
from typing import Any

from vae_bss_tf.files import write_json


def write_results(path: Path, **found: Any) -> None:
    """Writes what a benchmark found as JSON, with the number of processors that it had, and says where."""
    write_json(path, {"cores": len(os.sched_getaffinity(0)), **found})
    print(f"written: {path}")


def add_json(parser: argparse.ArgumentParser, name: str) -> None:
    """Adds `--json`, the file that the results are written to: `benchmarks/results/NAME.json` by default."""
    place = Path(f"benchmarks/results/{name}.json")
    parser.add_argument("--json", type=Path, default=place, help="file to write (default: %(default)s)")
