"""Makes and changes the folder that an operator copies and TensorFlow Serving serves."""

import contextlib
import dataclasses
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export.deployment.files import MODELS, MODELS_CONFIG, read_models_config, read_settings, settings, write_state
from export.deployment.versions import Versions, versions_in
from export.deployment.warmup import warmup_mixtures, write_warmup
from vae_bss_tf.config import Preset
from vae_bss_tf.errors import CheckpointError, ConfigError, OutputExistsError
from vae_bss_tf.files import parse_json, replacing, replacing_folder, write_text
from vae_bss_tf.runtime import MANIFEST, SIGNATURE, read_manifest
from vae_bss_tf.runtime.base import refusing_damage
from vae_bss_tf.runtime.manifest import check_file

_SUFFIXES = {"saved_model": "", "saved_model_waveform": "-waveform"}
_SIGNATURES = {"saved_model": SIGNATURE, "saved_model_waveform": "waveform"}  # by their names in the manifest
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclasses.dataclass(frozen=True)
class ServedExport:
    """An export to be served.

    Attributes:
        name: The name that its model is served under.
        folder: The folder that `python -m export` made.
        manifest: Its manifest.

    Example:
        >>> ServedExport.read("digits=exported/mnist").names
        ['digits']
    """

    name: str
    folder: Path
    manifest: dict[str, Any]

    @classmethod
    def read(cls, text: str) -> "ServedExport":
        """Reads an export as the command names it.

        Args:
            text: Its folder, whose name is the model's, or `NAME=FOLDER`.

        Returns:
            The export, its files as its manifest lists them.

        Raises:
            CheckpointError: It is no export, has no SavedModel, or a file is damaged.
            ConfigError: The name cannot be one of a model.
        """
        named, equals, path = ("", "", "") if Path(text).is_dir() else text.partition("=")
        folder = Path(path if equals else text)
        name = named if equals else folder.resolve().name
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r} cannot be the name of a model; give one of letters, digits, '_', '.' and '-': NAME={folder}"
            )
        if not (folder / MANIFEST).is_file():
            raise CheckpointError(f"{folder} is no export: it has no {MANIFEST}. Make one: python -m export")
        export = cls(name, folder, read_manifest(folder / MANIFEST))
        if "saved_model" not in export.kinds:
            raise CheckpointError(f"{folder} has no SavedModel; export the run with --formats saved_model.")
        with refusing_damage(folder / MANIFEST):
            _ = [export.interface(kind) for kind in export.kinds]
        for saved_model in export.paths.values():
            check_file(saved_model)
        return export

    @property
    def kinds(self) -> list[str]:
        """The formats of it that are served."""
        return [kind for kind in _SUFFIXES if kind in self.manifest["formats"]]

    @property
    def paths(self) -> dict[str, Path]:
        """Their SavedModels, by format."""
        return {kind: self.folder / self.manifest["formats"][kind]["path"] for kind in self.kinds}

    def interface(self, kind: str) -> dict[str, Any]:
        """What one of its models takes and gives, by its format, as the manifest has it."""
        return self.manifest["signatures"][_SIGNATURES[kind]]

    @property
    def names(self) -> list[str]:
        """The names that its models are served under."""
        return [self.name + _SUFFIXES[kind] for kind in self.kinds]

    def write(self, stack: contextlib.ExitStack, models: Path, versions: dict[str, int], data_dir: Path | None) -> None:
        """Writes its models into a deployment folder, with their warm-up and manifest.

        Args:
            stack: Moves them to their places when it closes, or away when an error closes it.
            models: The deployment's folder of models.
            versions: The version to write of each of `names`.
            data_dir: Folder of the data set's files, as `warmup_mixtures` takes it.
        """
        preset = Preset.from_dict(self.manifest["preset"])
        spectrograms, waveforms = warmup_mixtures(preset, self.paths["saved_model"], data_dir)
        for (kind, path), name in zip(self.paths.items(), self.names, strict=True):
            if not (models / name).is_dir():
                (models / name).mkdir(parents=True)
                _let_all_read(models / name)
            partial = stack.enter_context(replacing(models / name / str(versions[name])))
            shutil.copytree(path, partial, copy_function=shutil.copyfile)
            mixtures = spectrograms if kind == "saved_model" else waveforms
            assert mixtures is not None
            write_warmup(partial, name, mixtures)
            shutil.copyfile(self.folder / MANIFEST, partial / "assets.extra" / MANIFEST)
            _let_all_read(partial)


def make(
    exports: Sequence[ServedExport],
    folder: Path,
    *,
    version: int | None = None,
    data_dir: Path | None = None,
    cpus: int = 2,
    force: bool = False,
) -> dict[str, Versions]:
    """Makes a deployment folder; the one version of each model has the label `stable`.

    Args:
        exports: What to serve.
        folder: The folder to make.
        version: The versions' number; None takes 1.
        data_dir: Folder of the data set's files, as `warmup_mixtures` takes it.
        cpus: Processors that the server is given.
        force: Whether an earlier deployment is replaced.

    Returns:
        The versions of each model, by name.

    Raises:
        OutputExistsError: `folder` exists and may not be replaced.
        ConfigError: Two models have one name, or the folder cannot be made.
        DataError: The data set cannot be read.
    """
    if folder.exists() and not (folder / MODELS_CONFIG).is_file():
        raise OutputExistsError(f"{folder} exists and is no deployment of ours; choose another --to.")
    if folder.exists() and not force:
        raise OutputExistsError(
            f"{folder} holds a deployment; add to it by --add-version, replace it by --force, or choose another --to."
        )
    numbers = dict.fromkeys(_names(exports), version or 1)
    models = {name: Versions.first(number) for name, number in numbers.items()}
    with replacing_folder(folder) as staging, contextlib.ExitStack() as stack:
        for export in exports:
            export.write(stack, staging / MODELS, numbers, data_dir)
        for name, text in settings(next(iter(models)), cpus).items():
            write_text(staging / name, text)
        write_state(staging, models)
        _let_all_read(staging)
    return models


def add_versions(
    exports: Sequence[ServedExport], folder: Path, *, version: int | None = None, data_dir: Path | None = None
) -> dict[str, Versions]:
    """Adds a version of a model to a deployment folder, as its canary; or a model that is not there yet.

    Args:
        exports: What to add.
        folder: The deployment folder.
        version: The versions' number; None takes the next.
        data_dir: Folder of the data set's files, as `warmup_mixtures` takes it.

    Returns:
        The versions of each model, by name.

    Raises:
        CheckpointError: `folder` is no deployment.
        ConfigError: Two models have one name, another version is on trial, or a model takes or gives other shapes
            than its stable version.
        OutputExistsError: The version exists.
        DataError: The data set cannot be read.
    """
    models = read_models_config(folder / MODELS_CONFIG)
    read_settings(folder)
    there = {name: versions_in(folder / MODELS / name) for name in _names(exports)}
    numbers = {name: version or max(numbers, default=0) + 1 for name, numbers in there.items()}
    for export in exports:
        for kind, name in zip(export.kinds, export.names, strict=True):
            number = numbers[name]
            if number in there[name]:
                raise OutputExistsError(
                    f"{folder} has a version {number} of {name}; leave --version out, or put that one on trial: "
                    f"--canary {name} {number}"
                )
            if name in models:
                _check_interface(export, kind, folder, name, models[name].stable)
                models[name] = models[name].try_out(number, name)
            else:
                models[name] = Versions.first(number)
    with contextlib.ExitStack() as stack:
        for export in exports:
            export.write(stack, folder / MODELS, numbers, data_dir)
    write_state(folder, models)
    return models


def move_label(folder: Path, name: str, version: int, *, promote: bool) -> dict[str, Versions]:
    """Makes a version the stable one, or puts one on trial that the folder holds.

    Args:
        folder: The deployment folder.
        name: The model.
        version: The version.
        promote: Whether it becomes the stable one, which ends a trial; else the canary.

    Returns:
        The versions of each model, by name.

    Raises:
        CheckpointError: `folder` is no deployment.
        ConfigError: There is no such model or version, or the server could not follow the change in one step.
    """
    models = read_models_config(folder / MODELS_CONFIG)
    if name not in models:
        raise ConfigError(f"{folder} serves no {name}; it serves {', '.join(models)}.")
    there = versions_in(folder / MODELS / name)
    if version not in there:
        raise ConfigError(f"{folder} has no version {version} of {name}; it has {', '.join(map(str, there))}.")
    change = models[name].promote if promote else models[name].try_out
    models[name] = change(version, name)
    write_state(folder, models)
    return models


def _names(exports: Sequence[ServedExport]) -> list[str]:
    names = [name for export in exports for name in export.names]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigError(f"two models would be named {twice[0]}; name one otherwise: NAME=EXPORT")
    return names


def _check_interface(export: ServedExport, kind: str, folder: Path, name: str, stable: int) -> None:
    path = folder / MODELS / name / str(stable) / "assets.extra" / MANIFEST
    try:
        served = parse_json(path.read_text(encoding="utf-8"))["signatures"][_SIGNATURES[kind]]
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is missing or damaged; make the deployment again with --force.") from error
    if export.interface(kind) != served:
        raise ConfigError(
            f"{export.folder} takes or gives other shapes than version {stable} of {name}, which clients of {name} "
            f"rely on; serve it under another name: NAME={export.folder}"
        )


def _let_all_read(folder: Path) -> None:
    """The server runs as a user of its own, whatever the permissions of the files that were copied."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
