"""ONNX files: float32 by tf2onnx, int8 weights by onnxruntime."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from export.formats import failures_of
from vae_bss_tf.runtime import SIGNATURE

if TYPE_CHECKING:
    import onnx

OPSET = 18

# Everything the model needs, all of ONNX's own domain.
ALLOWED_OPERATIONS = frozenset({
    "Add", "Cast", "Concat", "Constant", "ConstantOfShape", "Conv", "ConvTranspose", "DepthToSpace", "DequantizeLinear",
    "Div", "DynamicQuantizeLinear", "Exp", "Expand", "Gather", "Gemm", "Identity", "Less", "Log", "MatMul",
    "MatMulInteger", "Max", "Mul", "Neg", "Not", "Pad", "Pow", "QuantizeLinear", "Reciprocal", "ReduceMax",
    "ReduceMean", "ReduceSum", "Relu", "Reshape", "Shape", "Slice", "SpaceToDepth", "Sqrt", "Squeeze", "Sub", "Tile",
    "Transpose", "Unsqueeze", "Where",
})  # fmt: skip


def convert(saved_model: Path, outputs: dict[str, Path], work: Path) -> None:
    """Converts a SavedModel's `separate`. Meant for a process of its own, as `tflite.convert` is.

    Args:
        saved_model: Folder of the SavedModel.
        outputs: "onnx_float32" and "onnx_int8", or "onnx_waveform", and the file to write for each.
        work: Folder for the float32 file that the int8 one is made from, where only that is asked for.
    """
    float32 = outputs.get("onnx_float32") or outputs.get("onnx_waveform") or work / "float32.onnx"
    with failures_of(next(iter(outputs))):
        _write(from_saved_model(saved_model, SIGNATURE), float32)
    if "onnx_int8" in outputs:
        with failures_of("onnx_int8"):
            _quantize_weights(float32, outputs["onnx_int8"])


def operations(path: Path) -> list[str]:
    """Lists a file's operations.

    Args:
        path: An `.onnx` file.

    Returns:
        The types of its nodes, sorted; those of another domain than ONNX's own as "domain:type".
    """
    import onnx

    nodes = onnx.load(path, load_external_data=False).graph.node
    return sorted(
        {node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}:{node.op_type}" for node in nodes}
    )


def from_saved_model(saved_model: Path, signature: str) -> "onnx.ModelProto":
    """Converts one signature of a SavedModel to a graph in float32, whose inputs and outputs have the same names."""
    import tensorflow as tf
    import tf2onnx

    loaded = tf.saved_model.load(str(saved_model))  # kept: its variables live as long as it does
    function = loaded.signatures[signature]
    specs = function.structured_input_signature[1]
    names = sorted(specs)

    def run(*values: tf.Tensor) -> dict[str, tf.Tensor]:
        return function(**dict(zip(names, values, strict=True)))

    model, _ = tf2onnx.convert.from_function(
        tf.function(run, autograph=False), input_signature=[specs[name] for name in names], opset=OPSET
    )
    return model


def _write(model: "onnx.ModelProto", path: Path) -> None:
    import onnx

    _write_out_sigmoids(model.graph)
    # tf2onnx only logs what it cannot convert; the checker finds it.
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _write_out_sigmoids(graph: "onnx.GraphProto") -> None:
    """Replaces each Sigmoid by 1 / (1 + exp(-x)).

    onnxruntime's Sigmoid is right to an absolute error; where all estimates are tiny the mask needs their ratio.
    """
    import onnx

    one = onnx.numpy_helper.from_array(np.ones((), np.float32), "sigmoid_one")
    nodes = []
    for node in graph.node:
        if node.op_type != "Sigmoid":
            nodes.append(node)
            continue
        logits, result = node.input[0], node.output[0]
        negative, power, total = f"{result}/negative", f"{result}/power", f"{result}/total"
        nodes += [
            onnx.helper.make_node("Neg", [logits], [negative]),
            onnx.helper.make_node("Exp", [negative], [power]),
            onnx.helper.make_node("Add", [power, one.name], [total]),
            onnx.helper.make_node("Reciprocal", [total], [result]),
        ]
    graph.initializer.append(one)
    del graph.node[:]
    graph.node.extend(nodes)


def _quantize_weights(float32: Path, path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Seven bits: x86 processors without VNNI add pairs of int8 products in 16 bits, which eight would overflow.
    # Convolutions stay in float32: they hold a hundredth of the weights, and ConvInteger is rare outside onnxruntime.
    quantize_dynamic(
        float32,
        path,
        op_types_to_quantize=["MatMul"],
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=True,
    )
