"""The int8 weights of an exported file against the model's, each to half a quantisation step.

The scores of an int8 file say whether it is good enough; a single wrong weight moves them by nothing. This does not
let it pass.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import numpy.typing as npt

from export.formats import ExportError

Array = npt.NDArray[np.float32]

_TOLERANCE = 0.51  # of a step


class Quantized(NamedTuple):
    """A weight matrix of a file.

    Attributes:
        values: float32 `[outputs, inputs]`, dequantised.
        steps: float32 `[outputs, 1]`, the size of a quantisation step.

    Example:
        >>> Quantized(values=np.array([[0.2, -0.4]], np.float32), steps=np.array([[0.1]], np.float32))
    """

    values: Array
    steps: Array


def kernels(model: keras.Model) -> list[tuple[Array, Array]]:
    """The model's kernels, each as it is and with the batch normalisation behind it multiplied in.

    Args:
        model: The Keras model.

    Returns:
        Pairs of float32 `[outputs, inputs]`, one for each dense layer.
    """
    found = []
    for layer in _layers(model):
        dense = getattr(layer, "dense", None)
        if isinstance(layer, keras.layers.Dense):
            kernel = np.asarray(layer.kernel).T
            found.append((kernel, kernel))
        elif isinstance(dense, keras.layers.Dense):
            kernel, norm = np.asarray(dense.kernel).T, layer.normalization
            scale = np.asarray(norm.gamma) / np.sqrt(np.asarray(norm.moving_variance) + norm.epsilon)
            found.append((kernel, kernel * scale[:, np.newaxis]))
    return found


def _layers(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    """A layer and those it is made of, except the dense layer of a block."""
    yield layer
    children = {}
    for value in vars(layer).values():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(item, keras.layers.Layer):
                children[id(item)] = item
    for child in children.values():
        if not (hasattr(layer, "normalization") and isinstance(child, keras.layers.Dense)):
            yield from _layers(child)


def check_int8(name: str, path: Path, expected: list[tuple[Array, Array]]) -> None:
    """Holds a file's int8 weights against the model's.

    Args:
        name: Name of the format, for the message.
        path: The `.tflite` or `.onnx` file.
        expected: What `kernels` gives.

    Raises:
        ExportError: A dense kernel of the model has no counterpart in the file within half a step at each weight.
    """
    found = list(_tflite_weights(path) if path.suffix == ".tflite" else _onnx_weights(path))
    for number, pair in enumerate(expected):
        if not any(_equal(weights, kernel) for kernel in pair for weights in found):
            raise ExportError(f"{name}: kernel {number} differs from the model's by more than half a step of int8.")


def _equal(weights: Quantized, kernel: Array) -> bool:
    return weights.values.shape == kernel.shape and bool(
        (np.abs(weights.values - kernel) <= _TOLERANCE * weights.steps).all()
    )


def _tflite_weights(path: Path) -> Iterator[Quantized]:
    from ai_edge_litert import schema_py_generated as schema

    content = path.read_bytes()
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    for tensor in model.subgraphs[0].tensors:
        buffer = model.buffers[tensor.buffer]
        # Large files keep their weights behind the flatbuffer.
        outside = np.frombuffer(content[buffer.offset : buffer.offset + buffer.size], np.int8)
        data = outside if buffer.data is None else np.asarray(buffer.data, np.uint8).view(np.int8)
        if tensor.type == schema.TensorType.INT8 and len(tensor.shape) == 2 and data.size:
            steps = np.asarray(tensor.quantization.scale, np.float32).reshape(-1, 1)
            yield Quantized(data.reshape(tensor.shape) * steps, steps)


def _onnx_weights(path: Path) -> Iterator[Quantized]:
    import onnx

    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    for name, values in arrays.items():
        scale = arrays.get(f"{name.removesuffix('_quantized')}_scale")
        if values.dtype == np.int8 and values.ndim == 2 and scale is not None:
            steps = scale.reshape(-1, 1)
            yield Quantized(values.T * steps, steps)
