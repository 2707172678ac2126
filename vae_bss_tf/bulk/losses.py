"""Files that end the process which separates them, as a crash of a decoder or a want of memory does.

Each worker process of this machine keeps a mark of the file that it is at. When one is lost, the mark says by which
file; the job starts again, and a file that has ended two processes is not tried any more.
"""

import collections
import json
import os
import shutil
import signal
import time
from pathlib import Path

from vae_bss_tf import files

_TRIES = 2
_WAIT_SECONDS = 10.0


class Losses:
    """The marks and the losses of a job.

    Args:
        output: The job's folder, on this machine.
    """

    def __init__(self, output: Path) -> None:
        self.marks = output / f"{files.PARTIAL}working"
        self._output = output
        self._told = output / "lost.json"

    def begin(self) -> dict[str, str]:
        """Begins a job.

        Returns:
            Why a file is not tried any more, by its path.
        """
        shutil.rmtree(self.marks, ignore_errors=True)
        self.marks.mkdir()
        reason = (
            f"its separation ended {_TRIES} processes, by a crash or for want of memory; leave it out, or repair it."
        )
        return {path: f"{path} is not tried any more: {reason}" for path, n in self._counts().items() if n >= _TRIES}

    def end(self) -> None:
        """Ends a job that ran to its end."""
        shutil.rmtree(self.marks, ignore_errors=True)

    def collect(self) -> list[str]:
        """Ends the workers that are left, and counts the files that the lost ones were at.

        Returns:
            These files.
        """
        found = {int(mark.name): mark.read_text(encoding="utf-8") for mark in self.marks.iterdir()}
        lost = [path for process, path in found.items() if path and not _is_running(process)]
        for process in filter(_is_running, found):
            os.kill(process, signal.SIGKILL)
        counts = self._counts()
        counts.update(lost)
        files.write_json(self._told, counts)
        end = time.monotonic() + _WAIT_SECONDS
        while any(map(_is_running, found)) and time.monotonic() < end:
            time.sleep(0.05)
        for left in [left for left in self._output.rglob(f"{files.PARTIAL}*") if left != self.marks]:
            shutil.rmtree(left, ignore_errors=True)
        return lost

    def _counts(self) -> collections.Counter[str]:
        if not self._told.is_file():
            return collections.Counter()
        return collections.Counter(json.loads(self._told.read_text(encoding="utf-8")))


def mark(marks: str | None, path: str) -> None:
    """Says in the folder of the marks, if there is one, which file this process is at; none where `path` is empty."""
    if marks is not None:
        (Path(marks) / str(os.getpid())).write_text(path, encoding="utf-8")


def _is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
