"""The errors that a user can cause, each with one line that says what is wrong and what to do.

Commands print the line and leave with exit code 2; the API raises the exception.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO, cast

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
_TENSORFLOWS_MEMORY_ERROR = "ResourceExhaustedError"
_EXTRAS = {
    **dict.fromkeys(("tensorflow", "keras", "tensorflow_probability", "sklearn", "scipy", "librosa"), "train"),
    **dict.fromkeys(("soundfile", "soxr"), "audio"),
    "PIL": "images",
    **dict.fromkeys(("tf2onnx", "onnx", "ai_edge_quantizer"), "export"),
    **dict.fromkeys(("tensorflow_serving", "aiohttp"), "serving"),
    "ai_edge_litert": "tflite",
    "onnxruntime": "onnx",
    "apache_beam": "bulk",
    "sounddevice": "live",
    "matplotlib": "figures",
}


class VaeBssError(Exception):
    """Base of every error that this package raises for bad input."""


class ConfigError(VaeBssError, ValueError):
    """A setting is unknown, out of its range, or does not fit the others."""


class DataError(VaeBssError, ValueError):
    """Data is missing, unreadable, damaged, or of the wrong shape, rate or range."""


class CheckpointError(VaeBssError):
    """A checkpoint or model file is missing, damaged, or belongs to another configuration."""


class OutputExistsError(VaeBssError, FileExistsError):
    """An output already exists and may not be overwritten."""


class ServerError(VaeBssError, ConnectionError):
    """A model server refused a request, answered nonsense, or lost the connection."""


class ServerUnavailableError(ServerError):
    """No connection to a model server, or it is not ready, and every retry failed too."""


class DeadlineError(ServerError):
    """A model server did not answer before the deadline."""


class JobError(VaeBssError):
    """A job on several processes or machines failed or lost one of them; running it again resumes it."""


def run_command(command: Callable[[], None]) -> int:
    """Runs a command's body and turns a user's mistake into one line on stderr.

    When the reader of standard output or standard error goes away (`| head -1`), the command continues and what it
    prints is dropped. Characters that the terminal's encoding lacks are printed as escapes.

    Args:
        command: The body; it returns nothing and raises on failure.

    Returns:
        The exit code: 0, 2 for a `VaeBssError`, an error of the operating system (a full or unwritable disk, a wrong
        path), too little memory or a library that is not installed, 130 when interrupted.
    """
    output, errors = (cast(TextIO, _LastingStream(stream)) for stream in (sys.stdout, sys.stderr))
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            command()
        except VaeBssError as error:
            return _fail(str(error))
        except ModuleNotFoundError as error:
            told = explained(error)
            if told is error:
                raise
            return _fail(str(told))
        except OSError as error:
            # HDF5 reports the system's error number only inside its message.
            if error.errno is None and f"errno = {errno.ENOSPC}" not in str(error):
                raise
            return _fail(_system_message(error))
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return EXIT_INTERRUPTED
        except Exception as error:
            if not isinstance(error, MemoryError) and type(error).__name__ != _TENSORFLOWS_MEMORY_ERROR:
                raise
            if os.strerror(errno.ENOSPC) in str(error):
                return _fail(_system_message(OSError(errno.ENOSPC, "")))
            return _fail("not enough memory; use smaller settings or batches, or a machine with more.")
        finally:
            sys.stdout.flush()
    return 0


def explained(error: ModuleNotFoundError) -> ModuleNotFoundError:
    """Names the extra of this package that brings a missing library.

    Args:
        error: The failed import.

    Returns:
        The same error with a message that says what to install, or itself where no extra brings the library.
    """
    library = (error.name or "").split(".")[0]
    extra = _EXTRAS.get(library)
    if extra is None:
        return error
    message = f"{library} is not installed; pip install 'vae-bss-tf[{extra}]' brings it."
    return ModuleNotFoundError(message, name=error.name)


class _LastingStream:
    """A text stream that survives its reader: after a broken pipe, what is written to it is dropped."""

    def __init__(self, stream: TextIO | None) -> None:
        # Python sets a standard stream to None where its descriptor is closed.
        self._stream = stream if stream is not None else open(os.devnull, "w")  # noqa: SIM115

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding
            return self.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except BrokenPipeError:
            self._drop()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._drop()

    def _drop(self) -> None:
        # On the descriptor itself, so that the interpreter's own flush at its end finds no broken pipe either.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)


def _fail(message: str) -> int:
    print("error:", *message.splitlines(), file=sys.stderr)
    return EXIT_USER_ERROR


def _system_message(error: OSError) -> str:
    place = f" ({error.filename})" if error.filename else ""
    if error.errno in (None, errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"no space left on the disk{place}: free some, or write elsewhere, and run the command again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission{place}: allow it, or choose another path"
    reason = os.strerror(error.errno or 0).lower()
    return f"{reason}: {error.filename}; choose another path" if error.filename else f"{reason}; run the command again"
