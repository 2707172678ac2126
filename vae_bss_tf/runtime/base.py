"""What every loaded model has in common: the names of its inputs and outputs, its description, its interface."""

import abc
import contextlib
import dataclasses
import importlib
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vae_bss_tf.checks import check, check_mixtures
from vae_bss_tf.config import Preset
from vae_bss_tf.errors import CheckpointError, ConfigError, VaeBssError

Array = npt.NDArray[np.float32]

INPUT = "mixture"
OUTPUTS = ("sources", "estimates", "latent_mean", "latent_log_variance")
SIGNATURE = "separate"
SETTINGS = "settings"


@dataclasses.dataclass(frozen=True)
class ModelMetadata:
    """What a loaded model is.

    Attributes:
        format: "keras", "saved_model", "tflite", "onnx", or for a model on a server "rest" or "grpc".
        path: The file or folder it was loaded from, or the server's URL.
        input_shape: Shape of one mixture.
        num_sources: K.
        latent_dim: Dimensions of one source's latent.
        preset: All settings, including those of audio; None for a file without a `manifest.json` beside it and for a
            server whose model does not report them.

    Example:
        >>> load("saved_models/mnist").metadata.num_sources
        2
    """

    format: str
    path: Path | str
    input_shape: tuple[int, ...]
    num_sources: int
    latent_dim: int
    preset: Preset | None


class LoadedModel(abc.ABC):
    """A separator in any format. Several threads may call one model at the same time.

    Attributes:
        metadata: What it is.

    Example:
        >>> model = load("saved_models/mnist")
        >>> model.separate(np.zeros((28, 28), np.float32)).shape
        (2, 28, 28)
    """

    metadata: ModelMetadata

    @abc.abstractmethod
    def _run(self, mixtures: Array, names: Sequence[str]) -> Mapping[str, Array]:
        """Runs one batch, float32 `[batch, *input_shape]`, and returns at least the arrays of these of `OUTPUTS`.

        Several threads may call it at the same time.
        """

    def outputs(self, mixtures: npt.ArrayLike, batch_size: int = 256) -> dict[str, Array]:
        """Returns every output of the model.

        Args:
            mixtures: `[*input_shape]` or `[num_mixtures, *input_shape]`, finite, in [0, 1].
            batch_size: Mixtures per call of the runtime; at least 1.

        Returns:
            float32 arrays by name: `sources` and `estimates` `[num_mixtures, num_sources, *input_shape]`,
            `latent_mean` and `latent_log_variance` `[num_mixtures, num_sources, latent_dim]`.

        Raises:
            ConfigError: `batch_size` is no whole number of at least 1.
            DataError: The shape is wrong, a value is no number, not finite, or outside [0, 1].
            ServerError: The model is on a server, which did not answer.
        """
        return self._collect(mixtures, batch_size, OUTPUTS)

    def separate(self, mixtures: npt.ArrayLike, batch_size: int = 256) -> Array:
        """Separates mixtures: posterior mean, decoder, mask over all sources (VAEM).

        Args:
            mixtures: `[*input_shape]` or `[num_mixtures, *input_shape]`, finite, in [0, 1].
            batch_size: Mixtures per call of the runtime; at least 1.

        Returns:
            float32 `[num_sources, *input_shape]` or `[num_mixtures, num_sources, *input_shape]`; the sources
            of a mixture sum to it.

        Raises:
            ConfigError: `batch_size` is no whole number of at least 1.
            DataError: The shape is wrong, a value is no number, not finite, or outside [0, 1].
            ServerError: The model is on a server, which did not answer.
        """
        sources = self._collect(mixtures, batch_size, ("sources",))["sources"]
        return sources if np.ndim(mixtures) > len(self.metadata.input_shape) else sources[0]

    def _collect(self, mixtures: npt.ArrayLike, batch_size: int, names: Sequence[str]) -> dict[str, Array]:
        check_count("batch_size", batch_size)
        shape = self.metadata.input_shape
        batch = check_mixtures(mixtures, shape).reshape(-1, *shape)
        parts = [self._run(batch[i : i + batch_size], names) for i in range(0, len(batch), batch_size)]
        return {name: np.concatenate([part[name] for part in parts]) for name in names}


def make_metadata(
    kind: str,
    path: Path | str,
    input_shape: Sequence[Any],
    output_shapes: Mapping[str, Sequence[Any]],
    preset: Preset | None,
) -> ModelMetadata:
    """Describes a model by its signature.

    Args:
        kind: See `ModelMetadata.format`.
        path: See `ModelMetadata.path`.
        input_shape: Shape of the input, the batch first.
        output_shapes: Shapes of the outputs by name, the batch first.
        preset: Its settings, where they are known.

    Returns:
        The description.

    Raises:
        CheckpointError: An output of `OUTPUTS` is missing, the shapes do not fit one another, or they are not those
            of the preset.
    """
    missing = [name for name in OUTPUTS if name not in output_shapes]
    if missing:
        raise CheckpointError(
            f"{path} has no output {missing[0]!r}; it is not ours, or takes waveforms: load its form for spectrograms."
        )
    mixture = tuple(input_shape[1:])
    found = {name: tuple(output_shapes[name][1:]) for name in OUTPUTS}
    sources, latents = found["sources"], found["latent_mean"]
    expected = {
        "sources": (*sources[:1], *mixture),
        "estimates": sources,
        "latent_mean": (*sources[:1], *latents[-1:]),
        "latent_log_variance": latents,
    }
    sizes = [*mixture, *sources, *latents]
    if found != expected or len(latents) != 2 or not all(isinstance(size, int) and size >= 1 for size in sizes):
        raise CheckpointError(f"{path} takes {INPUT} {mixture} and gives {found}, which do not fit; it is not ours.")
    metadata = ModelMetadata(kind, path, mixture, sources[0], latents[1], preset)
    if preset is not None:
        for field in ("input_shape", "num_sources", "latent_dim"):
            ours, said = getattr(metadata, field), getattr(preset.model, field)
            if ours != said:
                raise CheckpointError(f"{path} has {field} {ours}, its settings say {said}; export the model again.")
    return metadata


def check_count(name: str, value: Any) -> None:
    """Refuses what is no whole number of at least 1.

    Raises:
        ConfigError: It is none.
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    check(whole and value >= 1, name, value, "a whole number of at least 1")


def import_library(module: str, extra: str) -> types.ModuleType:
    """Imports a library that an extra of this package brings.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed; pip install 'vae-bss-tf[{extra}]' brings it.") from error


@contextlib.contextmanager
def refusing_damage(path: Path | str, passing: type[VaeBssError] = VaeBssError) -> Iterator[None]:
    """Turns whatever a block raises about a model into one line.

    Args:
        path: The model.
        passing: The errors that are raised as they are.

    Raises:
        CheckpointError: The block raised; the message names `path` and the first line of the reason.
    """
    try:
        yield
    except passing:
        raise
    except Exception as error:  # every runtime raises its own
        reason = [line for line in map(str.strip, str(error).splitlines()) if line] or [type(error).__name__]
        raise CheckpointError(f"{path} cannot be loaded ({reason[0][:300]}); it is damaged or not ours.") from error
