"""Files that end the process which separates them, as a crash of a decoder or a want of memory does.

Each worker process of this machine keeps a mark of the file that it is at. When one is lost, the mark says by which
file; the job starts again, and a file that has ended two processes is not tried any more. Where a user, or the end of
the machine, has interrupted the job, no file is to blame.
"""

import collections
import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from vae_bss_tf import files
from vae_bss_tf.errors import CheckpointError, JobError

_TRIES = 2
_WAIT_SECONDS = 10.0
_INTERRUPTED, _JOB = "interrupted", "job"  # beside the marks; the latter holds the machine's run and the process


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
        job = self.marks / _JOB
        boot, _, process = job.read_text().partition(" ") if job.is_file() else ("", "", "")
        if process and boot == _boot() and not self.was_interrupted():
            # An earlier run ended without a word: by what it was at itself, as the only process; workers end with it.
            path = self._marked().get(int(process))
            self._count([path] if path else [])
        shutil.rmtree(self.marks, ignore_errors=True)
        self.marks.mkdir()
        job.write_text(f"{_boot()} {os.getpid()}")
        reason = (
            f"its separation ended {_TRIES} processes, by a crash or for want of memory; leave it out, or repair it."
        )
        return {path: f"{path} is not tried any more: {reason}" for path, n in self._counts().items() if n >= _TRIES}

    @contextlib.contextmanager
    def unless_interrupted(self) -> Iterator[None]:
        """Blames no file when SIGINT or SIGTERM ends the job meanwhile, which raises KeyboardInterrupt."""

        def interrupt(*_: object) -> None:
            (self.marks / _INTERRUPTED).touch()
            raise KeyboardInterrupt

        before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        except JobError as error:  # what the runner makes of it
            if self.was_interrupted():
                raise KeyboardInterrupt from error
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def was_interrupted(self) -> bool:
        """Whether the job is being interrupted, or the last one was."""
        return (self.marks / _INTERRUPTED).exists()

    def end(self) -> None:
        """Ends a job that ran to its end."""
        shutil.rmtree(self.marks, ignore_errors=True)

    def collect(self) -> list[str]:
        """Ends the workers that are left, and counts the files that the lost ones were at.

        Returns:
            These files.
        """
        found = self._marked()
        lost = [path for process, path in found.items() if path and not _is_running(process)]
        for process in filter(_is_running, found):
            os.kill(process, signal.SIGKILL)
        self._count(lost)
        end = time.monotonic() + _WAIT_SECONDS
        while any(map(_is_running, found)) and time.monotonic() < end:
            time.sleep(0.05)
        for left in list(self._output.rglob(f"{files.PARTIAL}*")):  # the marks too, which are counted
            shutil.rmtree(left, ignore_errors=True)
        return lost

    def _marked(self) -> dict[int, str]:
        """The file that each process is or was at, by the process' number."""
        marks = [mark for mark in self.marks.iterdir() if mark.name.isdigit()]
        return {int(mark.name): mark.read_text("utf-8", "surrogateescape") for mark in marks}

    def _count(self, lost: Iterable[str]) -> None:
        counts = self._counts()
        counts.update(lost)
        if counts:
            files.write_json(self._told, counts)

    def _counts(self) -> collections.Counter[str]:
        if not self._told.is_file():
            return collections.Counter()
        try:
            told = files.parse_json(self._told.read_text(encoding="utf-8"))
        except ValueError:
            told = None
        if not isinstance(told, dict) or not all(isinstance(count, int) for count in told.values()):
            raise CheckpointError(f"{self._told} is damaged; remove it, and every file is tried again.")
        return collections.Counter(told)


def mark(marks: str | None, path: str) -> None:
    """Says in the folder of the marks, if there is one, which file this process is at; none where `path` is empty."""
    if marks is not None:
        (Path(marks) / str(os.getpid())).write_text(path, "utf-8", "surrogateescape")


def _boot() -> str:
    """Identifies the machine's run from one start to the next; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
