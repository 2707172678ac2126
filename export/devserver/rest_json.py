"""Requests and answers of TensorFlow Serving's REST API as JSON, for a development server."""

import base64
import json
from typing import Any

import numpy as np
import numpy.typing as npt

from export.devserver.store import Arrays, RequestError, Servable
from vae_bss_tf.runtime.remote.json_numbers import list_of_objects, nested_lists
from vae_bss_tf.runtime.remote.signatures import Signature


def predict(servable: Servable, body: bytes) -> str:
    """Answers a `:predict` request.

    Args:
        servable: The model's version.
        body: The request's JSON, in row form (`instances`) or column form (`inputs`).

    Returns:
        The answer's JSON, in the same form.

    Raises:
        RequestError: The JSON is none, or its names, types or shapes are wrong.
    """
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError("INVALID_ARGUMENT", f"JSON Parse error: {error}") from error
    if not isinstance(request, dict):
        raise RequestError("INVALID_ARGUMENT", "the request is no JSON object")
    name = request.get("signature_name", "")
    if not isinstance(name, str):
        raise RequestError("INVALID_ARGUMENT", "'signature_name' is no string")
    forms = [form for form in ("instances", "inputs") if form in request]
    if len(forms) != 1:
        raise RequestError(
            "INVALID_ARGUMENT", "Missing 'inputs' or 'instances' key" if not forms else "both 'inputs' and 'instances'"
        )
    signature = servable.signature(name)
    by_row = forms == ["instances"]
    columns = _columns(request["instances"], signature) if by_row else _named(request["inputs"], signature)
    outputs = servable.run(name, {key: _array(key, value, signature) for key, value in columns.items()})
    if any(array.dtype == object for array in outputs.values()):
        return _with_strings(outputs, by_row)
    if len(outputs) == 1:
        text = nested_lists(*outputs.values())
    elif by_row:
        text = list_of_objects(outputs)
    else:
        columns_text = (f"{json.dumps(key)}: {nested_lists(array)}" for key, array in outputs.items())
        text = f"{{{', '.join(columns_text)}}}"
    return f'{{"{"predictions" if by_row else "outputs"}": {text}}}'


def _columns(instances: Any, signature: Signature) -> dict[str, Any]:
    """Turns rows into columns by name."""
    if not isinstance(instances, list) or not instances:
        raise RequestError("INVALID_ARGUMENT", "'instances' is no list, or an empty one")
    rows = [_named(instance, signature) for instance in instances]
    if any(row.keys() != rows[0].keys() for row in rows):
        raise RequestError("INVALID_ARGUMENT", "the instances do not all have the same keys")
    return {key: [row[key] for row in rows] for key in rows[0]}


def _named(value: Any, signature: Signature) -> dict[str, Any]:
    """A value by name, where a signature of one input allows it to stand alone."""
    if isinstance(value, dict) and value.keys() != {"b64"}:
        return value
    if len(signature.inputs) != 1:
        raise RequestError("INVALID_ARGUMENT", "the signature has several inputs; name each of them")
    return {next(iter(signature.inputs)): value}


def _array(name: str, value: Any, signature: Signature) -> npt.NDArray[Any]:
    wants_strings = name in signature.inputs and signature.inputs[name].dtype == "string"
    try:
        if wants_strings:
            strings = np.array(_decoded(value), object)
            if not all(isinstance(text, bytes) for text in strings.flat):
                raise ValueError("a value is no string")
            return strings
        array = np.asarray(value)
        if array.dtype.kind not in "fiu":
            raise ValueError("a value is no number, or the lists differ in length")
        return array.astype(np.float32)
    except (ValueError, TypeError, OverflowError) as error:
        raise RequestError("INVALID_ARGUMENT", f"JSON Value of {name}: {' '.join(str(error).split())[:200]}") from error


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    if isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str):
        return base64.b64decode(value["b64"], validate=True)
    return value.encode() if isinstance(value, str) else value


def _with_strings(outputs: Arrays, by_row: bool) -> str:
    """Writes outputs among which are strings: text, or base64 where the output's name says that they are bytes."""

    def values(name: str, array: npt.NDArray[Any]) -> list[Any]:
        if array.dtype != object:
            return array.tolist()
        if name.endswith("_bytes"):
            return [{"b64": base64.b64encode(item).decode()} for item in array]
        return [item.decode() for item in array]

    columns = {name: values(name, array) for name, array in outputs.items()}
    if len(columns) == 1:
        answer: Any = next(iter(columns.values()))
    elif by_row:
        answer = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    else:
        answer = columns
    return json.dumps({"predictions" if by_row else "outputs": answer})
