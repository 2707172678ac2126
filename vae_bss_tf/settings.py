"""What every settings class shares: a JSON round trip and checked construction."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from vae_bss_tf.checks import check_choice, check_kind, shown
from vae_bss_tf.errors import ConfigError


class Settings:
    """JSON round trip and checked construction, shared by the dataclasses below."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds the settings from a mapping as `to_dict` or JSON gives it.

        Args:
            values: Field names and values; lists stand for tuples.

        Returns:
            The settings.

        Raises:
            ConfigError: A field is unknown, or a value is of another kind or out of its range.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"{cls.__name__} is {shown(values)}; it must be settings by name.")
        names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        for name in values:
            check_choice(f"{cls.__name__} field", name, names)
        given = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]
            if field.name in given:
                given[field.name] = cls._field(field.name, given[field.name], field.default)
        return cls(**given)

    @classmethod
    def _field(cls, name: str, value: Any, default: Any) -> Any:
        check_kind(name, value, default)
        return value

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings as a dictionary that JSON can hold."""
        values = dataclasses.asdict(self)  # type: ignore[call-overload]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    def replace(self, **changes: Any) -> Self:
        """Returns a copy with some fields changed and all of them checked again."""
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]


def first_difference(stored: Any, given: Any, name: str = "") -> str:
    """Names the first setting in which two descriptions of settings differ.

    Args:
        stored: Settings as `to_dict` gives them.
        given: Others; the two differ.
        name: Name of the setting that both are the values of.

    Returns:
        Such as "model.latent_dim is 12 there and 10 here".

    Example:
        >>> first_difference({"model": {"latent_dim": 12}}, {"model": {"latent_dim": 10}})
        'model.latent_dim is 12 there and 10 here'
    """
    if isinstance(stored, dict) and isinstance(given, dict):
        for key in (*stored, *given):
            if stored.get(key) != given.get(key):
                return first_difference(stored.get(key), given.get(key), f"{name}.{key}".strip("."))
    if isinstance(stored, list) and isinstance(given, list) and len(stored) == len(given):
        for one, other in zip(stored, given, strict=True):
            if one != other:
                named = one["name"] if isinstance(one, dict) and "name" in one else "an entry"
                return first_difference(one, other, f"{name}.{named}")
    return f"{name} is {shown(stored)} there and {shown(given)} here"
