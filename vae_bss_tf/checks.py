"""Checks of what a user hands in, with no TensorFlow."""

import difflib
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from vae_bss_tf.errors import ConfigError, DataError

LARGEST, LARGEST_WHOLE = 1e30, 2**31
MOST_MINUTES = 1e6
_SHOWN = 200


def shown(value: object) -> str:
    """A value as a message shows it: on one line, and cut after 200 characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # more digits, or deeper, than Python prints
        return f"a {type(value).__name__} too large to print"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def check_choice(name: str, value: str, choices: Iterable[str]) -> str:
    """Returns `value` when it is one of `choices`.

    Args:
        name: What the value is, for the message.
        value: The value received.
        choices: The values allowed.

    Returns:
        `value`.

    Raises:
        ConfigError: `value` is not allowed; the message names the nearest choice and all of them.
    """
    choices = tuple(choices)
    if value in choices:
        return value
    nearest = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.5)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise ConfigError(f"unknown {name} {shown(value)}.{hint} Choose one of: {', '.join(choices)}.")


def check(condition: bool, name: str, value: object, allowed: str) -> None:
    """Raises unless a condition holds.

    Args:
        condition: What must hold.
        name: The setting.
        value: The value received.
        allowed: The values allowed, in words that follow "it must be".

    Raises:
        ConfigError: The condition does not hold; the message names setting, value and allowed values.
    """
    if not condition:
        raise ConfigError(f"{name} is {shown(value)}; it must be {allowed}.")


def check_minutes(minutes: float) -> None:
    """Refuses a time to train for that no training takes.

    Args:
        minutes: The value of `--minutes`.

    Raises:
        ConfigError: It is not above 0 and at most a million, or NaN.
    """
    check(0 < minutes <= MOST_MINUTES, "--minutes", minutes, f"above 0 and at most {MOST_MINUTES:,.0f}")


def check_budget(epochs: int | None, minutes: float | None) -> None:
    """Refuses options that say how long to train twice, or as no training takes.

    Args:
        epochs: The value of `--epochs`; None where it is not given.
        minutes: The value of `--minutes`; None where it is not given.

    Raises:
        ConfigError: Both are given, or the minutes are out of their range.
    """
    if epochs is not None and minutes is not None:
        raise ConfigError("--epochs and --minutes both say how long to train; give one of them.")
    if minutes is not None:
        check_minutes(minutes)


def check_kind(name: str, value: Any, default: Any) -> None:
    """Refuses a value of another kind than a setting's default, which is what JSON and `--set` may bring.

    Args:
        name: The setting.
        value: The value received.
        default: The setting's default: a tuple, a number, text, a truth value, or None for an optional number.

    Raises:
        ConfigError: The value is of another kind, or a number beyond the range of float32.
    """
    if isinstance(default, tuple) and all(isinstance(item, str) for item in default) and default:
        fits = isinstance(value, tuple) and all(isinstance(item, str) for item in value)
        allowed = 'names in brackets, such as ["encoder", "decoder"]'
    elif isinstance(default, tuple):
        kinds = (int,) if all(type(item) is int for item in default) else (int, float)
        fits = isinstance(value, tuple) and all(type(item) in kinds for item in value)
        allowed = f"{'whole ' if kinds == (int,) else ''}numbers in brackets, such as [1, 2]"
    elif isinstance(default, (bool, str)):
        fits, allowed = type(value) is type(default), "true or false" if isinstance(default, bool) else "text"
    elif isinstance(default, int):
        fits, allowed = type(value) is int, "a whole number"
    else:
        fits, allowed = type(value) in (int, float) or (value is None and default is None), "a number"
    check(fits, name, value, allowed)
    for number in value if isinstance(value, tuple) else (value,):
        if type(number) in (int, float):
            limit = LARGEST_WHOLE if type(number) is int else LARGEST
            check(abs(number) <= limit, name, number, f"between {-limit:.0e} and {limit:.0e}")


def check_numbers(values: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    """Returns an array of real numbers.

    Args:
        values: What was handed in.
        name: What it is, in the plural, for the message.

    Raises:
        DataError: It is no array, or one of complex numbers, texts or other objects.
    """
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, OverflowError) as error:  # such as rows of different lengths
        raise DataError(f"{name} are no array of numbers ({error}); give real numbers.") from error
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name} are no array of numbers (their type is {array.dtype}); give real numbers.")
    return array


def check_mixtures(mixtures: npt.ArrayLike, input_shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Returns mixtures as a float32 array after checking them.

    Args:
        mixtures: `[*input_shape]` or `[num_mixtures, *input_shape]`.
        input_shape: Shape of one mixture.

    Returns:
        The same values, float32.

    Raises:
        DataError: The shape is another, there is no mixture, a value is no real number, not finite, or outside [0, 1].
    """
    with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite and is refused below
        array = check_numbers(mixtures, "mixtures").astype(np.float32, copy=False)
    if array.shape[-len(input_shape) :] != tuple(input_shape) or array.ndim > len(input_shape) + 1:
        raise DataError(
            f"mixtures have shape {array.shape}; expected {tuple(input_shape)} or (n, {str(tuple(input_shape))[1:]}."
        )
    if array.size == 0:
        raise DataError("no mixtures were given; expected at least one.")
    if not np.isfinite(array).all():
        raise DataError("mixtures hold NaN or infinite values; remove them first.")
    if array.min() < 0 or array.max() > 1 + 1e-5:  # a sum of sources may round past 1
        raise DataError(f"mixtures range from {array.min():.3g} to {array.max():.3g}; scale them to [0, 1] first.")
    return array
