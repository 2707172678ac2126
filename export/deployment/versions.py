"""Which versions of a served model are loaded, and which of them the labels `stable` and `canary` name.

TensorFlow Serving gives a label that is in use to another version only if that version is already loaded, and refuses
the whole configuration otherwise, the part that would have loaded the version included. So every change here is one
that a running server can follow in one step: `canary` is a new label on a version that is to be loaded, and `stable`
moves only to a version that is loaded already. Requests that name no label go to the largest version that is loaded;
outside a trial that is the stable one.
"""

import dataclasses
import re
from pathlib import Path

from vae_bss_tf.errors import ConfigError

STABLE = "stable"
CANARY = "canary"

_VERSION = re.compile(r"0|[1-9][0-9]{0,17}")  # the protocols have 64 bits for it


@dataclasses.dataclass(frozen=True)
class Versions:
    """The versions of one model.

    Attributes:
        stable: The version that clients are meant to use.
        canary: The version on trial; None outside a trial.
        loaded: The versions that the server holds ready, in rising order.

    Example:
        >>> Versions.first(1).try_out(2, "mnist").labels
        {'stable': 1, 'canary': 2}
    """

    stable: int
    canary: int | None
    loaded: tuple[int, ...]

    @classmethod
    def first(cls, version: int) -> "Versions":
        """A model of one version."""
        return cls(version, None, (version,))

    @property
    def labels(self) -> dict[str, int]:
        """Versions by label."""
        labels = {STABLE: self.stable}
        return labels if self.canary is None else {**labels, CANARY: self.canary}

    def try_out(self, version: int, name: str) -> "Versions":
        """Puts a version on trial.

        Args:
            version: The version, another than the stable one.
            name: The model's name, for messages.

        Returns:
            The stable version and the canary, both loaded.

        Raises:
            ConfigError: Another version is on trial, or the version is the stable one.
        """
        if self.canary is not None:
            raise ConfigError(
                f"version {self.canary} of {name} is on trial; end the trial first: --promote {name} {self.canary} "
                f"takes it, --promote {name} {self.stable} drops it."
            )
        if version == self.stable:
            raise ConfigError(f"version {version} of {name} is the stable one; choose another for the trial.")
        return Versions(self.stable, version, tuple(sorted((self.stable, version))))

    def promote(self, version: int, name: str) -> "Versions":
        """Makes a loaded version the stable one and ends the trial.

        Args:
            version: The version. The stable one itself drops the canary.
            name: The model's name, for messages.

        Returns:
            The version as stable; the one before it stays loaded if it is an older one, to go back to at once.

        Raises:
            ConfigError: The version is not loaded.
        """
        if version not in self.loaded:
            raise ConfigError(
                f"version {version} of {name} is not loaded, and `{STABLE}` can only move to one that is; load it "
                f"first: --canary {name} {version}"
            )
        kept = [v for v in self.loaded if v < version and v == self.stable]
        return Versions(version, None, (*kept, version))


def versions_in(folder: Path) -> list[int]:
    """Lists the versions in a model's folder; sub-folders that are not named by a number of at most 18 digits are none.

    Args:
        folder: The model's folder.

    Returns:
        The versions in rising order; none where the folder is missing.
    """
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if _VERSION.fullmatch(name))
