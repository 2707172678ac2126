"""A model on a server, whatever the protocol: retries, deadline, and the check of what it is."""

import itertools
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from vae_bss_tf.config import Preset
from vae_bss_tf.errors import CheckpointError, ServerError, ServerUnavailableError
from vae_bss_tf.files import parse_json
from vae_bss_tf.runtime.base import (
    INPUT,
    SETTINGS,
    SIGNATURE,
    Array,
    LoadedModel,
    make_metadata,
    refusing_damage,
)
from vae_bss_tf.runtime.manifest import read_manifest
from vae_bss_tf.runtime.remote.address import Address
from vae_bss_tf.runtime.remote.options import ServerOptions
from vae_bss_tf.runtime.remote.signatures import Signature, parse_manifest_signatures

Answer = TypeVar("Answer")


class Transport(Protocol):
    """One protocol's way to ask a server; each method sends one request and raises a `ServerError`."""

    def signatures(self, seconds: float) -> dict[str, Signature]:
        """Reads the model's signatures within so many seconds."""
        ...

    def predict(
        self, signature: str, array: npt.NDArray[Any], described: Signature, names: Sequence[str], seconds: float
    ) -> Mapping[str, npt.NDArray[Any]]:
        """Runs a signature of one input on a batch within so many seconds and returns at least the named outputs."""
        ...

    def close(self) -> None:
        """Closes the connections."""
        ...


class RemoteModel(LoadedModel):
    """A model on a server. Several threads may use it at the same time.

    Args:
        address: Where it is.
        options: Deadline, retries and the like.
        transport: The protocol.

    Raises:
        CheckpointError: The model is not ours, or differs from the manifest in the options.
        ServerError: The server cannot be reached, or its answer is none of TensorFlow Serving.

    Example:
        >>> with load("grpc://127.0.0.1:8500/mnist") as model:
        ...     sources = model.separate(mixture)
    """

    def __init__(self, address: Address, options: ServerOptions, transport: Transport) -> None:
        self._address = address
        self._options = options
        self._transport = transport
        url = address.url
        with refusing_damage(url):
            self._signatures = self._ask(transport.signatures)
            separate = self._signatures.get(SIGNATURE)
            if separate is None or set(separate.inputs) != {INPUT}:
                raise CheckpointError(f"{url} has no signature {SIGNATURE!r} from {INPUT!r}; it is not ours.")
            for name, tensor in {**separate.inputs, **separate.outputs}.items():
                if tensor.dtype != "float32" or not tensor.shape:
                    raise CheckpointError(f"{url}: {name} is {_words(tensor)}; it is no model of ours.")
            settings = self._settings() if SETTINGS in self._signatures else None
            if options.manifest is not None:
                settings = self._check_against_manifest(settings, Path(options.manifest))
            self.metadata = make_metadata(
                "rest" if address.scheme == "http" else address.scheme,
                url,
                separate.inputs[INPUT].shape or (),
                {name: tensor.shape or () for name, tensor in separate.outputs.items()},
                None if settings is None else settings[0],
            )

    def close(self) -> None:
        """Closes the connections; the model cannot be used afterwards."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, mixtures: Array, names: Sequence[str]) -> Mapping[str, Array]:
        return self._predict(SIGNATURE, mixtures, names)

    def _predict(self, name: str, array: npt.NDArray[Any], outputs: Sequence[str]) -> Mapping[str, npt.NDArray[Any]]:
        signature = self._signatures[name]
        answer = self._ask(lambda seconds: self._transport.predict(name, array, signature, outputs, seconds))
        for output in outputs:
            described = signature.outputs[output]
            expected = (len(array), *(described.shape or ())[1:])
            if output not in answer or answer[output].shape != expected:
                found = f"has shape {answer[output].shape}" if output in answer else "is missing"
                raise ServerError(f"{self._address.url}: the answer's {output} {found}; expected {expected}.")
            if described.dtype == "float32" and not _is_finite(answer[output]):
                raise ServerError(f"{self._address.url}: the answer's {output} holds NaN, infinite or no numbers.")
        return answer

    def _ask(self, request: Callable[[float], Answer]) -> Answer:
        """Sends a request, given the seconds it may take, again and again while the server is unavailable."""
        options = self._options
        end = time.monotonic() + options.deadline
        for attempt in itertools.count():
            try:
                return request(end - time.monotonic())
            except ServerUnavailableError as error:
                # 2 ** 30 is more than any `max_backoff` and no overflow.
                pause = min(options.max_backoff, options.backoff * 2 ** min(attempt, 30)) * random.uniform(0.5, 1.0)
                if attempt == options.retries or time.monotonic() + pause >= end:
                    tries = "1 attempt" if attempt == 0 else f"{attempt + 1} attempts"
                    raise ServerUnavailableError(
                        f"{self._address.url} is not available ({error}) after {tries}; start the server, or check "
                        "host and port."
                    ) from error
                time.sleep(pause)
        raise AssertionError("unreachable")

    def _settings(self) -> tuple[Preset, str]:
        signature = self._signatures[SETTINGS]
        if len(signature.inputs) != 1 or SETTINGS not in signature.outputs:
            raise CheckpointError(f"{self._address.url} has a signature {SETTINGS!r} that is not ours.")
        answer = self._predict(SETTINGS, np.array([b""], object), (SETTINGS,))
        try:
            return _settings_in(parse_json(answer[SETTINGS][0]))
        except Exception as error:  # a server can send anything
            raise CheckpointError(
                f"{self._address.url} has settings that this version cannot read ({error}); export it again."
            ) from error

    def _check_against_manifest(self, settings: tuple[Preset, str] | None, path: Path) -> tuple[Preset, str]:
        """Compares the served model with the manifest and returns the manifest's settings."""
        manifest = read_manifest(path)
        try:
            expected = parse_manifest_signatures(manifest["signatures"])
            described = _settings_in(manifest)
        except Exception as error:  # a file can hold anything
            raise CheckpointError(f"{path} is no manifest of ours; export the model again.") from error
        # The form for waveforms is a model of its own.
        expected.pop("waveform", None)
        difference = _difference(expected, self._signatures)
        if difference is None and settings is not None and settings[1] != described[1]:
            difference = f"its config hash is {settings[1]}, not {described[1]}"
        if difference is not None:
            raise CheckpointError(f"{self._address.url} is not the model of {path}: {difference}.")
        return described


def _settings_in(values: Mapping[str, Any]) -> tuple[Preset, str]:
    """The settings that a server or a manifest reports, and their hash."""
    return Preset.from_dict(values["preset"]), str(values["config_hash"])


def _difference(expected: Mapping[str, Signature], found: Mapping[str, Signature]) -> str | None:
    for name, signature in expected.items():
        if name not in found:
            return f"it has no signature {name!r}"
        for kind in ("inputs", "outputs"):
            ours, theirs = getattr(signature, kind), getattr(found[name], kind)
            if set(ours) != set(theirs):
                return f"the {kind} of {name!r} are {sorted(theirs)}, not {sorted(ours)}"
            for tensor in ours:
                if ours[tensor] != theirs[tensor]:
                    return f"{tensor!r} of {name!r} is {_words(theirs[tensor])}, not {_words(ours[tensor])}"
    return None


def _words(tensor: Any) -> str:
    sizes = ", ".join("any" if size is None else str(size) for size in tensor.shape or ())
    return f"{tensor.dtype} [{sizes}]"


def _is_finite(array: npt.NDArray[Any]) -> bool:
    return array.dtype == np.float32 and bool(np.isfinite(array).all())
