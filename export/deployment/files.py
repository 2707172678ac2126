"""The files beside the models in a deployment folder: what the server reads, and what starts it."""

import string
import textwrap
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from types import ModuleType

from export.deployment.versions import CANARY, STABLE, Versions
from vae_bss_tf.errors import CheckpointError
from vae_bss_tf.files import replacing
from vae_bss_tf.runtime import import_library

MODELS_CONFIG = "models.config"
MODELS = "models"

_SETTINGS = ("batching_parameters.txt", "monitoring.config", "docker-compose.yml", "kubernetes.yaml")
_MAPPED = ("batching_parameters.txt", "monitoring.config")  # into the ConfigMap too


class _Template(string.Template):
    """A template whose placeholders begin with `@`; the files have `$` of their own."""

    delimiter = "@"


def settings(name: str, cpus: int) -> dict[str, str]:
    """The files that are written once; an operator may change them.

    Args:
        name: The model that Kubernetes asks after to see whether the server is ready.
        cpus: Processors that the server is given.

    Returns:
        Texts by name of file.
    """
    return {file: _filled(file, model=name, cpus=cpus) for file in _SETTINGS}


def write_state(folder: Path, models: Mapping[str, Versions]) -> None:
    """Writes the files that follow each change of a model: the server's list, its copy for Kubernetes, the README.

    Args:
        folder: The deployment folder, with the files of `settings` in it.
        models: The versions of each model, by name.

    Raises:
        CheckpointError: A file of `settings` is missing or is no text.
    """
    texts = read_settings(folder)
    texts[MODELS_CONFIG] = models_config(models)
    _write(folder / "kubernetes-config.yaml", _config_map(texts))
    _write(folder / "README.md", _readme(models))
    # Last: a running server follows it.
    _write(folder / MODELS_CONFIG, texts[MODELS_CONFIG])


def read_settings(folder: Path) -> dict[str, str]:
    """Reads the files that an operator may have tuned and that Kubernetes needs a copy of.

    Args:
        folder: The deployment folder.

    Returns:
        Texts by name of file.

    Raises:
        CheckpointError: One is missing or is no text.
    """
    texts = {}
    for name in _MAPPED:
        try:
            texts[name] = (folder / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", "no text")
            raise CheckpointError(f"{folder / name} cannot be read ({reason}); put it back.") from error
    return texts


def _write(path: Path, text: str) -> None:
    # The server runs as a user of its own, whatever the umask here.
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
        partial.chmod(0o644)


def models_config(models: Mapping[str, Versions]) -> str:
    """Writes a ModelServerConfig as text.

    Args:
        models: The versions of each model, by name.

    Returns:
        The text; each model's folder is `/models/NAME`.

    Raises:
        ConfigError: tensorflow-serving-api is not installed.
    """
    text_format, config_pb2 = _protos()
    config = config_pb2.ModelServerConfig()
    for name, versions in models.items():
        model = config.model_config_list.config.add(
            name=name, base_path=f"/{MODELS}/{name}", model_platform="tensorflow"
        )
        model.model_version_policy.specific.versions.extend(versions.loaded)
        model.version_labels.update(versions.labels)
    return text_format.MessageToString(config)


def read_models_config(path: Path) -> dict[str, Versions]:
    """Reads what `models_config` wrote.

    Args:
        path: The file.

    Returns:
        The versions of each model, by name.

    Raises:
        CheckpointError: It is missing, is no ModelServerConfig, or not one that this package writes.
        ConfigError: tensorflow-serving-api is not installed.
    """
    text_format, config_pb2 = _protos()
    try:
        config = text_format.Parse(path.read_text(encoding="utf-8"), config_pb2.ModelServerConfig())
        for model in config.model_config_list.config:
            loaded = model.model_version_policy.specific.versions
            if STABLE not in model.version_labels or not set(model.version_labels.values()) <= set(loaded):
                raise ValueError(f"{model.name} has no stable version among those loaded")
        return {
            model.name: Versions(
                model.version_labels[STABLE],
                model.version_labels.get(CANARY),
                tuple(model.model_version_policy.specific.versions),
            )
            for model in config.model_config_list.config
        }
    except (OSError, ValueError, KeyError, text_format.ParseError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({str(error).splitlines()[0]}); give a folder made by python -m export.serving."
        ) from error


def _protos() -> tuple[ModuleType, ModuleType]:
    modules = ("google.protobuf.text_format", "tensorflow_serving.config.model_server_config_pb2")
    text_format, config_pb2 = (import_library(module, "train,serving") for module in modules)
    return text_format, config_pb2


def _filled(name: str, **values: object) -> str:
    """Fills the template of a file; templates are data of this package, in a clone and in a wheel."""
    template = resources.files("export.deployment") / "templates" / f"{name}.in"
    return _Template(template.read_text(encoding="utf-8")).substitute(values)


def _config_map(texts: Mapping[str, str]) -> str:
    data = (f"  {name}: |2\n{textwrap.indent(texts[name].rstrip(), '    ')}" for name in sorted(texts))
    return _filled("kubernetes-config.yaml", data="\n".join(data))


def _readme(models: Mapping[str, Versions]) -> str:
    rows = [
        f"| `{name}` | {versions.stable} | {versions.canary or '-'} | {', '.join(map(str, versions.loaded))} |"
        for name, versions in models.items()
    ]
    return _filled("README.md", rows="\n".join(rows), model=next(iter(models)))
