"""Signatures of a served model: names, dtypes and shapes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

_DTYPES = {"DT_FLOAT": "float32", "DT_STRING": "string"}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An input or output: its dtype by name, and its shape, None where any size will do."""

    dtype: str
    shape: tuple[int | None, ...] | None


@dataclasses.dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a signature by name."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


def parse_signatures(definitions: Mapping[str, Any]) -> dict[str, Signature]:
    """Reads the signatures of a server's metadata.

    Args:
        definitions: `SignatureDef` messages by name, as JSON.

    Returns:
        The signatures by name.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: It is something else.
    """
    return {
        name: Signature(_tensors(definition.get("inputs", {})), _tensors(definition.get("outputs", {})))
        for name, definition in definitions.items()
    }


def parse_manifest_signatures(signatures: Mapping[str, Any]) -> dict[str, Signature]:
    """Reads the signatures of an export's manifest, as `parse_signatures` does."""

    def tensors(described: Mapping[str, Any]) -> dict[str, Tensor]:
        return {
            name: Tensor(tensor["dtype"], tuple(None if size == "batch" else int(size) for size in tensor["shape"]))
            for name, tensor in described.items()
        }

    return {name: Signature(tensors(s["inputs"]), tensors(s["outputs"])) for name, s in signatures.items()}


def _tensors(described: Mapping[str, Any]) -> dict[str, Tensor]:
    found = {}
    for name, info in described.items():
        dtype = str(info.get("dtype", "DT_INVALID"))
        shape = info.get("tensor_shape", {})
        sizes = [int(dimension.get("size", 0)) for dimension in shape.get("dim", [])]
        found[name] = Tensor(
            _DTYPES.get(dtype, dtype),
            None if shape.get("unknown_rank") else tuple(size if size >= 0 else None for size in sizes),
        )
    return found
