"""What the commands share: their `main`, words that argparse misreads, paths, and numbers with commas between."""

import argparse
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from vae_bss_tf.errors import EXIT_USER_ERROR, run_command


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` that tells a mistake in one line, without the usage before it.

    Example:
        >>> Parser(prog="python -m training.fit").parse_args(["--epoch"])
        Traceback (most recent call last):
        SystemExit: 2
    """

    def error(self, message: str) -> NoReturn:
        """Prints what is wrong, in one line, and ends the process with exit code 2."""
        self.exit(EXIT_USER_ERROR, f"error: {message}; {self.prog} --help lists what is taken.\n")


def command(
    parser: Callable[[], argparse.ArgumentParser],
    run: Callable[[argparse.Namespace], None],
    *,
    signed: Sequence[str] = (),
) -> Callable[..., int]:
    """Makes the `main` of a command.

    Args:
        parser: Makes the command's parser.
        run: The command's body, given the options, with the words of the command under `command`; it raises on failure.
        signed: As `parsed` takes it.

    Returns:
        A function that runs the command with the words that it is given, those of the process by default, and returns
        the exit code: 0, 2 for a user's mistake, 130 when interrupted (see `errors.run_command`).
    """

    def main(arguments: Sequence[str] | None = None) -> int:
        words, made = list(sys.argv[1:] if arguments is None else arguments), parser()
        options = parsed(made, words, signed=signed)
        options.command = shlex.join([*made.prog.split(), *words])
        return run_command(lambda: run(options))

    return main


def parsed(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None, *, signed: Sequence[str] = ()
) -> argparse.Namespace:
    """Parses the words of a command line.

    Args:
        parser: The command's parser.
        arguments: The words; those of the process by default.
        signed: Options whose value may begin with a minus, which argparse would take for another option.

    Returns:
        The options. A word such as `--epochs=--`, for which argparse gives an empty list in place of a number, ends
        the process like any other bad word, with one line and exit code 2.
    """
    given = iter(sys.argv[1:] if arguments is None else arguments)
    words = [f"{word}={next(given, '')}" if word in signed else word for word in given]
    for word in words:
        if word.startswith("--") and word.endswith("=--"):
            parser.error(f"{word} names no value")
    return parser.parse_args(words)


def given(options: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """The values of those options that were given.

    Args:
        options: What was parsed; an option that was not given is None.
        names: The options' names.
    """
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def path(text: str) -> Path:
    """Reads a path, as the `type` of an option; an empty one would be the current folder.

    Args:
        text: The path.

    Returns:
        The path.

    Raises:
        ArgumentTypeError: It is empty.
    """
    if not text:
        raise argparse.ArgumentTypeError("the path is empty; is a variable of the shell not set?")
    return Path(text)


def counts(text: str) -> tuple[int, ...]:
    """Reads whole numbers with commas between, as the `type` of an option.

    Args:
        text: Such as "2" or "1,2,3".

    Returns:
        The numbers.

    Raises:
        ArgumentTypeError: A part is no whole number.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, or several with commas between") from error
