"""float32 arrays as JSON text, several times faster than `json.dumps` and shorter."""

import json
import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

# Nine digits tell every float32 from its neighbours.
_NUMBER = "%.9g"


def nested_lists(array: npt.NDArray[np.float32]) -> str:
    """Writes an array as nested lists.

    Args:
        array: float32, of any shape.

    Returns:
        JSON; NaN and infinite values as `NaN` and `Infinity`, which JSON does not know but its readers do.
    """
    if not np.isfinite(array).all():
        return json.dumps(array.tolist())
    return _lists(array.shape) % tuple(array.ravel().tolist())


def list_of_objects(arrays: Mapping[str, npt.NDArray[np.float32]]) -> str:
    """Writes arrays as a list of objects, one for each place of their first axis.

    Args:
        arrays: float32 `[count, ...]` by name, with one count.

    Returns:
        JSON, as `nested_lists` gives it.
    """
    if not all(np.isfinite(array).all() for array in arrays.values()):
        lists = [array.tolist() for array in arrays.values()]
        return json.dumps([dict(zip(arrays, row, strict=True)) for row in zip(*lists, strict=True)])
    names = {name: json.dumps(name).replace("%", "%%") for name in arrays}
    row = ", ".join(f"{names[name]}: {_lists(array.shape[1:])}" for name, array in arrays.items())
    (count,) = {len(array) for array in arrays.values()}
    values = np.concatenate([array.reshape(count, -1) for array in arrays.values()], axis=1)
    return f"[{', '.join(['{' + row + '}'] * count)}]" % tuple(values.ravel().tolist())


def _lists(shape: tuple[int, ...]) -> str:
    """The nested lists of a shape with a place for each number."""
    text = _NUMBER
    if math.prod(shape) == 0:
        return json.dumps(np.zeros(shape).tolist())
    for size in reversed(shape):
        text = f"[{', '.join([text] * size)}]"
    return text
