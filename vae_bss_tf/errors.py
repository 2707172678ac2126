"""The errors that a user can cause, each with one line that says what is wrong and what to do.

Commands print the line and leave with exit code 2; the API raises the exception.
"""

import errno
import os
import sys
from collections.abc import Callable

EXIT_USER_ERROR = 2


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


def run_command(command: Callable[[], None]) -> int:
    """Runs a command's body and turns a user's mistake into one line on stderr.

    Args:
        command: The body; it returns nothing and raises on failure.

    Returns:
        The exit code: 0, 2 for a `VaeBssError`, a full or unwritable disk or a wrong path, 130 when interrupted.
    """
    try:
        command()
    except VaeBssError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except OSError as error:
        message = _path_message(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _path_message(error: OSError) -> str | None:
    place = f" ({error.filename})" if error.filename else ""
    # HDF5 reports the system's error number only inside its message.
    if error.errno == errno.ENOSPC or f"errno = {errno.ENOSPC}" in str(error):
        return f"no space left on the disk{place}: free some, or write elsewhere, and start again with --resume"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission to write{place}: choose another folder"
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR) and error.filename:
        return f"{os.strerror(error.errno).lower()}: {error.filename}; choose another path"
    return None
