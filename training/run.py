"""A run folder: everything about one training, readable without the command that made it.

config.json      settings, seed, system, versions of the libraries
model.keras      the model as the last finished phase left it
metrics.json     time, speed and scores; only a finished training has it
history.csv      loss, ELBO, likelihood, KL and score of each epoch, over all phases
separation.png   separated held-out mixtures
history.png      the curves of history.csv
backup/          the states to resume from (see `training.backup`)
tensorboard/     the same for TensorBoard

An export holds `config.json`, `metrics.json` and `history.csv` of its run too, and the weights as `weights.npz` in
place of `model.keras`: so it is a run to begin another with, to judge and to export again.
"""

import contextlib
import dataclasses
import importlib.metadata
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from training import systems
from vae_bss_tf.checks import check, check_choice
from vae_bss_tf.config import Preset
from vae_bss_tf.errors import CheckpointError, OutputExistsError
from vae_bss_tf.files import PARTIAL, held, parse_json, write_json
from vae_bss_tf.runtime.manifest import MANIFEST
from vae_bss_tf.saved import load_keras_model, load_weights, read_settings

WEIGHTS = "weights.npz"
BUDGET = ("mixtures", "seconds", "parameters", "seed")  # what a training took, in `metrics.json`
OF_AN_EXPORT = ("config.json", "metrics.json", "history.csv")
LIBRARIES = ("vae-bss-tf", "tensorflow", "keras", "tensorflow-probability", "numpy")
_CONFIG = "config.json"


def _empty(path: Path) -> None:
    """Deletes what a run folder holds but its settings, by which the folder is still a run if this is interrupted."""
    for entry in path.iterdir():
        if entry.name == _CONFIG:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Holds a run folder for one training at a time; one that is killed holds it no more.

    Args:
        path: The folder, which must be there.

    Yields:
        None.

    Raises:
        OutputExistsError: Another process holds it.
    """
    with _held(path, shared=False):
        yield


@contextlib.contextmanager
def unchanged(path: Path) -> Iterator[None]:
    """Holds a run folder as it is: others may read it meanwhile, and none trains it.

    Args:
        path: The folder, which must be there.

    Yields:
        None.

    Raises:
        OutputExistsError: Another process trains it.
    """
    with _held(path, shared=True):
        yield


@contextlib.contextmanager
def _held(path: Path, *, shared: bool) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held(path, wait=False, shared=shared))
        except BlockingIOError as error:
            raise OutputExistsError(
                f"{path} is being trained or exported by another process; wait for it to end."
            ) from error
        yield


@dataclasses.dataclass(frozen=True)
class Run:
    """One training's folder and settings.

    Attributes:
        path: The folder.
        preset: The resolved settings.
        system: What was trained, such as "vae".
        init: The run whose weights it began with, as it was given, if it did with one's.

    Example:
        >>> run = Run.load("saved_models/mnist")
        >>> run.system, run.model().config.num_sources
        ('vae', 2)
    """

    path: Path
    preset: Preset
    system: str
    init: str | None = None

    @classmethod
    def create(cls, path: Path, preset: Preset, system: str, *, init: str | None = None, force: bool = False) -> "Run":
        """Makes a new run folder with its `config.json`.

        Args:
            path: The folder.
            preset: The resolved settings.
            system: What is to be trained.
            init: The run whose weights it begins with, as it was given; None for none.
            force: Whether an earlier run there is deleted first. A folder that is no run is never deleted.

        Returns:
            The run.

        Raises:
            OutputExistsError: The folder holds something already.
        """
        cls.check_new(path, force=force)
        if path.is_dir() and any(path.iterdir()):
            with exclusive(path):
                _empty(path)
        path.mkdir(parents=True, exist_ok=True)
        run = cls(path, preset, system, init)
        write_json(path / _CONFIG, run._description())
        return run

    @staticmethod
    def check_new(path: Path, *, force: bool) -> None:
        """Refuses a folder that `create` would refuse.

        Args:
            path: As `create` takes it.
            force: As `create` takes it.

        Raises:
            OutputExistsError: The folder holds something already.
        """
        if not path.exists() or (path.is_dir() and all(entry.name.startswith(PARTIAL) for entry in path.iterdir())):
            return
        if (path / MANIFEST).exists():
            raise OutputExistsError(f"{path} is an export, which no training replaces; choose another --output.")
        if not (path / _CONFIG).is_file():
            raise OutputExistsError(f"{path} exists and is no run of ours; choose another --output.")
        if not force:
            raise OutputExistsError(
                f"{path} holds an earlier run; resume it by --resume, replace it by --force, or choose another "
                "--output."
            )

    @classmethod
    def load(cls, path: Path | str) -> "Run":
        """Opens a run folder.

        Args:
            path: The folder.

        Returns:
            The run.

        Raises:
            CheckpointError: It is missing, is no run, or its settings cannot be read.
        """
        path = Path(path)
        try:
            content = read_settings(path)
            preset, init = Preset.from_dict(content), content.get("init")
            check(init is None or isinstance(init, str), "init", init, "the name of a run")
            return cls(path, preset, check_choice("system", content.get("system", ""), systems.trained()), init)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise CheckpointError(
                f"{path} is no run folder: it has no config.json. Train one: python -m training.fit"
            ) from error
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{path / 'config.json'} cannot be read ({error}); it is damaged or of another version."
            ) from error

    @property
    def metrics(self) -> dict[str, Any]:
        """Contents of `metrics.json`; empty before the training has ended. A damaged one is a `CheckpointError`."""
        path = self.path / "metrics.json"
        try:
            content = parse_json(path.read_text(encoding="utf-8")) if path.is_file() else {}
            check(isinstance(content, dict), "its content", content, "scores by name")
            for name in BUDGET:
                check(isinstance(content.get(name, 0), (int, float)), name, content.get(name), "a number")
            return content
        except ValueError as error:
            raise CheckpointError(f"{path} cannot be read ({error}); it is damaged: train again.") from error

    def model(self) -> keras.Model:
        """Loads the trained model: `model.keras`, or the `weights.npz` of an export.

        Returns:
            The model, not compiled.

        Raises:
            CheckpointError: The file is missing or damaged.
        """
        path = self.path / "model.keras"
        if not path.is_file() and (self.path / WEIGHTS).is_file():
            return load_weights(self.path / WEIGHTS, self.preset)
        if not path.is_file():
            raise CheckpointError(f"{path} is not there; finish the training by the same command with --resume.")
        return load_keras_model(path, self.preset.model)

    def _description(self) -> dict[str, Any]:
        return {
            "system": self.system,
            **({} if self.init is None else {"init": self.init}),
            **self.preset.to_dict(),
            "config_hash": self.preset.config_hash(),
            "versions": {"python": platform.python_version(), **{n: importlib.metadata.version(n) for n in LIBRARIES}},
        }
