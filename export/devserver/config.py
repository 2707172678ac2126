"""What a development server serves: TensorFlow Serving's own configuration, or folders named on the command line."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export.deployment.versions import versions_in
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

    Example:
        >>> ServedModel("mnist", Path("exported/mnist/saved_model")).aspired()
        [1]
    """

    name: str
    base_path: Path
    latest: int | None = 1
    specific: tuple[int, ...] | None = None
    labels: dict[str, int] = dataclasses.field(default_factory=dict)

    def aspired(self) -> list[int]:
        """The versions in the folder that are to be served, in rising order; an unfinished folder is none."""
        found = [v for v in versions_in(self.base_path) if (self.base_path / str(v) / "saved_model.pb").is_file()]
        if self.specific is not None:
            return [version for version in found if version in self.specific]
        return found if self.latest is None else found[-self.latest :]


def read_config(path: Path, models_root: Path | None = None) -> list[ServedModel]:
    """Reads the models from a file of TensorFlow Serving's `--model_config_file`.

    Args:
        path: A `ModelServerConfig` as protobuf text.
        models_root: The folder that stands for `/models`, where a container has its models; None takes each
            `base_path` as it is.

    Raises:
        ConfigError: It is missing, is no such text, or asks for what this server does not do.
    """
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    try:
        config = text_format.Parse(path.read_text(encoding="utf-8"), model_server_config_pb2.ModelServerConfig())
        return _checked([_served(model, models_root) for model in config.model_config_list.config])
    except (OSError, ValueError, text_format.ParseError) as error:
        raise ConfigError(f"{path} cannot be served: {' '.join(str(error).split())}") from error


def named_models(words: Sequence[str]) -> list[ServedModel]:
    """Takes models as `NAME=PATH`, PATH an export or a folder of numbered versions, all of which are served.

    Raises:
        ConfigError: A word is no such pair, a name occurs twice, or there is no version.
    """
    models = []
    for word in words:
        name, _, place = word.partition("=")
        path = Path(place)
        if not name or not place:
            raise ConfigError(f"--model {word!r} is no NAME=PATH, such as mnist=exported/mnist.")
        models.append(ServedModel(name, path / "saved_model" if (path / MANIFEST).is_file() else path, latest=None))
    return _checked(models)


def _served(model: Any, models_root: Path | None) -> ServedModel:
    if not model.name or not model.base_path:
        raise ConfigError("a model needs a name and a base_path.")
    policy, base_path = model.model_version_policy, Path(model.base_path)
    choice = policy.WhichOneof("policy_choice") or "latest"
    latest = (policy.latest.num_versions or 1) if choice == "latest" else None
    specific = tuple(policy.specific.versions) if choice == "specific" else None
    if models_root is not None:
        if not base_path.is_relative_to(_CONTAINER_ROOT) or ".." in base_path.parts:
            raise ConfigError(f"base_path of {model.name} is {base_path}; --models-root stands for {_CONTAINER_ROOT}.")
        base_path = models_root / base_path.relative_to(_CONTAINER_ROOT)
    return ServedModel(model.name, base_path, latest, specific, dict(model.version_labels))


def _checked(models: list[ServedModel]) -> list[ServedModel]:
    names = [model.name for model in models]
    if not names:
        raise ConfigError("no model stands in model_config_list; add one: config { name: ... base_path: ... }.")
    for model in models:
        place, served = f"{model.name}: {model.base_path}", model.aspired()
        if names.count(model.name) > 1:
            raise ConfigError(f"the model {model.name} is given twice; each needs a name of its own.")
        for version in sorted({*(model.specific or ()), *model.labels.values()} - set(served)):
            raise ConfigError(f"{place} has no version {version}, or it is not to be served.")
        if not served:
            raise ConfigError(f"{place} has no folder of a version, such as 1; make one: python -m export")
    return models
