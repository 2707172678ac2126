"""Fresh processes: to convert in, and to run one exported file in its own runtime."""

import contextlib
import json
import multiprocessing
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from export.formats import ExportError
from vae_bss_tf.errors import explained

_START_SECONDS = 120.0


@contextlib.contextmanager
def converters() -> Iterator[ProcessPoolExecutor]:
    """Two fresh processes, silent ones: TensorFlow's converter leaks memory, and all converters print.

    Raises:
        ExportError: One of them was ended from outside.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=2, mp_context=context, initializer=_silence) as pool:
        try:
            yield pool
        except BrokenProcessPool as error:
            raise ExportError(
                "a converter was ended from outside, as where memory runs out; free some, and export again."
            ) from error


class Worker:
    """A fresh process that runs one file; see `run_file.py`.

    Args:
        path: The file or folder, or a run as `keras_predict:PATH` or `keras_call:PATH`.
        num_threads: Threads of its runtime.
        log: Where its stderr goes.

    Example:
        >>> with Worker(Path("exported/mnist/float32.tflite"), num_threads=1, log=Path("log.txt")) as worker:
        ...     seconds = worker.ask(do="one", calls=100)["seconds"]
    """

    def __init__(self, path: Path | str, num_threads: int, log: Path) -> None:
        self._name = Path(str(path)).name
        self._log = log.open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(Path(__file__).with_name("run_file.py")), str(path), str(num_threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        with self._deadline():
            try:
                self.load_seconds: float = self._answer()["load_seconds"]
            except ExportError:
                self.close()
                raise

    def ask(self, **command: Any) -> dict[str, Any]:
        """Sends one command and returns its answer."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(command), file=self._process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            lines = self._log.read().strip().splitlines() or ["it ended without a word"]
            missing = re.fullmatch(r"ModuleNotFoundError: No module named '([\w.]+)'", lines[-1])
            reason = explained(ModuleNotFoundError(lines[-1], name=missing[1])) if missing else lines[-1]
            raise ExportError(f"{self._name} does not run in its runtime: {reason}")
        return json.loads(line)

    @contextlib.contextmanager
    def _deadline(self) -> Iterator[None]:
        timer = threading.Timer(_START_SECONDS, self._process.kill)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _silence() -> None:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
