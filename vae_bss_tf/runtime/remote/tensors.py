"""Arrays to and from `TensorProto` messages, with no TensorFlow operation and no copy more than needed."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

DT_FLOAT = 1
DT_STRING = 7


def fill_proto(proto: Any, array: npt.NDArray[Any]) -> None:
    """Writes an array into an empty `TensorProto`.

    Args:
        proto: The message.
        array: float32, or objects of type `bytes`.
    """
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    if array.dtype == object:
        proto.dtype = DT_STRING
        proto.string_val.extend(array.ravel().tolist())
    else:
        proto.dtype = DT_FLOAT
        proto.tensor_content = np.ascontiguousarray(array, "<f4").tobytes()


def read_proto(proto: Any, max_filled: int = 2**26) -> npt.NDArray[Any]:
    """Reads a `TensorProto`.

    Args:
        proto: The message; its values stand in `tensor_content` or, as TensorFlow Serving sends them by default, one
            by one; the last of these then stands for all that follow it.
        max_filled: Most values that fewer in the message may stand for.

    Returns:
        float32, or objects of type `bytes`. It may be read-only and share the message's memory.

    Raises:
        ValueError: The dtype is another, or there are not as many values as the shape says.
    """
    shape = tuple(dimension.size for dimension in proto.tensor_shape.dim)
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise ValueError("the shape of a tensor is not complete")
    count = math.prod(shape)
    values: npt.NDArray[Any]
    if proto.dtype == DT_FLOAT:
        if proto.tensor_content:
            content = proto.tensor_content
            values = np.frombuffer(content, "<f4") if len(content) % 4 == 0 else np.zeros(0, np.float32)
        else:
            values = np.fromiter(proto.float_val, np.float32, len(proto.float_val))
    elif proto.dtype == DT_STRING:
        values = np.empty(len(proto.string_val), object)
        values[:] = proto.string_val
    else:
        raise ValueError(f"the dtype of a tensor is number {proto.dtype}; float (1) and string (7) are known")
    if 0 < len(values) < count <= max_filled and not proto.tensor_content:
        values = np.concatenate([values, np.repeat(values[-1:], count - len(values))])
    if len(values) != count:
        raise ValueError(f"a tensor of shape {list(shape)} holds {len(values)} values; it needs {count}")
    return values.reshape(shape)
