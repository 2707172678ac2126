"""A model on a server, whatever the protocol: retries, deadline, and the check of what it is."""

import itertools
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from vae_bss_tf.config import Preset
from vae_bss_tf.errors import CheckpointError, ServerError, ServerUnavailableError, VaeBssError
from vae_bss_tf.runtime import (
    INPUT,
    OUTPUTS,
    SETTINGS,
    SIGNATURE,
    Array,
    LoadedModel,
    make_metadata,
    read_manifest,
)
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
    """A model on a server. It may be used from several threads at once.

    Args:
        address: Where it is.
        options: Deadline, retries and the like.
        transport: The protocol.
    """

    def __init__(self, address: Address, options: ServerOptions, transport: Transport) -> None:
        self._address = address
        self._options = options
        self._transport = transport
        self._signatures = self._ask(transport.signatures)
        separate = self._signatures.get(SIGNATURE)
        if separate is None or set(separate.inputs) != {INPUT}:
            raise CheckpointError(f"{address.url} has no signature {SIGNATURE!r} from {INPUT!r}; it is not ours.")
        shapes = {name: tensor.shape or () for name, tensor in separate.outputs.items()}
        mixture = separate.inputs[INPUT]
        self.metadata = make_metadata(
            "rest" if address.scheme == "http" else address.scheme, address.url, mixture.shape or (), shapes, None
        )
        _check_shapes(address.url, separate)
        settings = self._settings() if SETTINGS in self._signatures else None
        if options.manifest is not None:
            settings = self._check_against_manifest(settings)
        if settings is not None:
            self.metadata = make_metadata(
                self.metadata.format, address.url, mixture.shape or (), shapes, _preset(address.url, settings)
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
            expected = (len(array), *(signature.outputs[output].shape or ())[1:])
            if output not in answer or answer[output].shape != expected:
                found = f"has shape {answer[output].shape}" if output in answer else "is missing"
                raise ServerError(f"{self._address.url}: the answer's {output} {found}; expected {expected}.")
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

    def _settings(self) -> dict[str, Any]:
        request = np.array([b""], object)
        answer = self._predict(SETTINGS, request, (SETTINGS,))
        try:
            settings = json.loads(answer[SETTINGS][0])
            return {"preset": settings["preset"], "config_hash": settings["config_hash"]}
        except (ValueError, TypeError, LookupError) as error:
            raise CheckpointError(f"{self._address.url} says settings that are not ours; export it again.") from error

    def _check_against_manifest(self, settings: dict[str, Any] | None) -> dict[str, Any]:
        """Compares the served model with the manifest and returns the settings of either."""
        path = self._options.manifest
        assert path is not None
        manifest = read_manifest(path)
        try:
            expected = parse_manifest_signatures(manifest["signatures"])
            described = {"preset": manifest["preset"], "config_hash": manifest["config_hash"]}
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise CheckpointError(f"{path} is no manifest of ours; export the model again.") from error
        # The form for waveforms is a model of its own.
        expected.pop("waveform", None)
        difference = _difference(expected, self._signatures)
        if difference is None and settings is not None and settings["config_hash"] != described["config_hash"]:
            difference = f"its config hash is {settings['config_hash']}, not {described['config_hash']}"
        if difference is not None:
            raise CheckpointError(f"{self._address.url} is not the model of {path}: {difference}.")
        return described


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


def _check_shapes(url: str, separate: Signature) -> None:
    tensors = {INPUT: separate.inputs[INPUT], **{name: separate.outputs[name] for name in OUTPUTS}}
    for name, tensor in tensors.items():
        if tensor.dtype != "float32" or not tensor.shape or None in tensor.shape[1:]:
            raise CheckpointError(f"{url}: {name} is {_words(tensor)}; it is no model of ours.")


def _preset(url: str, settings: Mapping[str, Any]) -> Preset:
    try:
        return Preset.from_dict(settings["preset"])
    except (VaeBssError, ValueError, TypeError, LookupError) as error:
        raise CheckpointError(f"{url} has settings that this version cannot read ({error}).") from error
