"""What a development server serves: TensorFlow Serving's own configuration, or folders named on the command line."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vae_bss_tf.errors import ConfigError
from vae_bss_tf.runtime import MANIFEST

_CONTAINER_ROOT = Path("/models")


@dataclasses.dataclass(frozen=True)
class ServedModel:
    """One model to serve.

    Attributes:
        name: Its name in requests.
        base_path: Folder of its numbered versions.
        latest: Serve so many of the latest versions; None for all, or those of `specific`.
        specific: Serve these versions; None for those of `latest`.
        labels: Versions by label.
    """

    name: str
    base_path: Path
    latest: int | None = 1
    specific: tuple[int, ...] | None = None
    labels: dict[str, int] = dataclasses.field(default_factory=dict)

    def aspired(self) -> list[int]:
        """The versions in the folder that are to be served, in order; an unfinished folder is none."""
        try:
            folders = list(self.base_path.iterdir())
        except OSError:
            return []
        found = sorted(int(f.name) for f in folders if f.name.isdecimal() and (f / "saved_model.pb").is_file())
        if self.specific is not None:
            return [version for version in found if version in self.specific]
        return found if self.latest is None else found[-self.latest :]


def read_config(path: Path, models_root: Path | None = None) -> list[ServedModel]:
    """Reads a file of TensorFlow Serving's `--model_config_file`.

    Args:
        path: A `ModelServerConfig` as protobuf text.
        models_root: The folder that stands for `/models`, where a container has its models; None takes each
            `base_path` as it is.

    Returns:
        Its models.

    Raises:
        ConfigError: It is missing, is no such text, or asks for what this server does not do.
    """
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    try:
        text = path.read_text(encoding="utf-8")
        return parse_config(text_format.Parse(text, model_server_config_pb2.ModelServerConfig()), models_root)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({getattr(error, 'strerror', 'no text')}).") from error
    except text_format.ParseError as error:
        raise ConfigError(f"{path} is no ModelServerConfig: {' '.join(str(error).split())}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def parse_config(config: Any, models_root: Path | None = None) -> list[ServedModel]:
    """Takes the models from a `ModelServerConfig`.

    Args:
        config: The message.
        models_root: As `read_config` takes it.

    Raises:
        ConfigError: It names no model, one twice, or asks for what this server does not do.
    """
    described = config.model_config_list.config
    if not described:
        raise ConfigError("no model stands in model_config_list; add one: config { name: ... base_path: ... }.")
    return _checked([_served(model, models_root) for model in described])


def named_models(words: Sequence[str]) -> list[ServedModel]:
    """Takes models as `NAME=PATH`; all versions in the path are served.

    Args:
        words: PATH is an export folder or a folder of numbered versions.

    Raises:
        ConfigError: A word is no such pair, or a name occurs twice.
    """
    models = []
    for word in words:
        name, _, place = word.partition("=")
        if not name or not place:
            raise ConfigError(f"--model {word!r} is no NAME=PATH, such as mnist=exported/mnist.")
        path = Path(place)
        models.append(ServedModel(name, path / "saved_model" if (path / MANIFEST).is_file() else path, latest=None))
    return _checked(models)


def _served(model: Any, models_root: Path | None) -> ServedModel:
    if not model.name or not model.base_path:
        raise ConfigError("a model needs a name and a base_path.")
    if (model.model_platform or "tensorflow") != "tensorflow":
        raise ConfigError(f"model_platform of {model.name} is {model.model_platform!r}; 'tensorflow' is served.")
    latest: int | None = 1
    specific = None
    policy = model.model_version_policy.WhichOneof("policy_choice")
    if policy == "all":
        latest = None
    elif policy == "latest":
        latest = model.model_version_policy.latest.num_versions or 1
    elif policy == "specific":
        latest, specific = None, tuple(model.model_version_policy.specific.versions)
    base_path = Path(model.base_path)
    if models_root is not None:
        if not base_path.is_relative_to(_CONTAINER_ROOT):
            raise ConfigError(f"base_path of {model.name} is {base_path}; --models-root stands for {_CONTAINER_ROOT}.")
        base_path = models_root / base_path.relative_to(_CONTAINER_ROOT)
    return ServedModel(model.name, base_path, latest, specific, dict(model.version_labels))


def _checked(models: list[ServedModel]) -> list[ServedModel]:
    names = [model.name for model in models]
    for model in models:
        if names.count(model.name) > 1:
            raise ConfigError(f"the model {model.name} is given twice; each needs a name of its own.")
        if not model.base_path.is_dir():
            raise ConfigError(f"{model.name}: there is no folder {model.base_path}.")
        aspired = model.aspired()
        missing = sorted(set(model.specific or ()) - set(aspired))
        if missing:
            raise ConfigError(f"{model.name}: {model.base_path} has no version {missing[0]}.")
        if not aspired:
            raise ConfigError(
                f"{model.name}: {model.base_path} has no versions (folders such as 1 with a saved_model.pb); "
                "make one: python -m export"
            )
        unserved = [label for label, version in model.labels.items() if version not in aspired]
        if unserved:
            raise ConfigError(
                f"{model.name}: label {unserved[0]} is for version {model.labels[unserved[0]]}, which is not served."
            )
    return models
