"""TFLite files: float32 by TensorFlow's converter, float16 and int8 by ai-edge-quantizer from the float32 file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.formats import failures_of
from vae_bss_tf.runtime import INPUT, SIGNATURE

# Everything the model needs. None of them is a custom or a Flex operation: any runtime of LiteRT has them all.
ALLOWED_OPERATIONS = frozenset({
    "ADD", "BATCH_MATMUL", "CONCATENATION", "CONV_2D", "DEPTH_TO_SPACE", "DEQUANTIZE", "DIV", "EXP", "EXPAND_DIMS",
    "FULLY_CONNECTED", "LESS", "LOG", "LOGISTIC", "MAXIMUM", "MEAN", "MUL", "PACK", "PAD", "POW", "QUANTIZE",
    "REDUCE_MAX", "RESHAPE", "SELECT_V2", "SHAPE", "SLICE", "SPACE_TO_DEPTH", "SQRT", "SQUARE", "STRIDED_SLICE", "SUB",
    "SUM", "TILE", "TRANSPOSE", "TRANSPOSE_CONV",
})  # fmt: skip


def convert(saved_model: Path, outputs: dict[str, Path], calibration: npt.NDArray[np.float32]) -> None:
    """Converts a SavedModel's `separate`. Meant for a process of its own: the converter leaks memory.

    Args:
        saved_model: Folder of the SavedModel; its batch size becomes the file's.
        outputs: Names of formats of `FORMATS` that begin with "tflite", and the file to write for each.
        calibration: float32 `[num_mixtures, *input_shape]`, training mixtures that set the ranges of full int8.
    """
    with failures_of(next(iter(outputs))):
        float32 = from_saved_model(saved_model, SIGNATURE)
    writers = {
        "tflite_float32": lambda: float32,
        "tflite_waveform": lambda: float32,
        "tflite_float16": lambda: cast_matrices(float32),
        # The transform stays in float32, without which the sources would not sum to the mixture.
        "tflite_waveform_float16": lambda: cast_matrices(float32, ".*coder.*"),
        "tflite_dynamic_int8": lambda: quantize_weights(float32),
        "tflite_full_int8": lambda: _quantize_fully(float32, calibration),
    }
    for name, path in outputs.items():
        with failures_of(name):
            path.write_bytes(writers[name]())


def operations(path: Path) -> list[str]:
    """Lists a file's operations.

    Args:
        path: A `.tflite` file.

    Returns:
        The names of its builtin operations, sorted, and custom ones (Flex operations too) as "CUSTOM:name".
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    builtin = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    found = set()
    for code in model.operatorCodes:
        # Files of the first schema hold the operation's number in the deprecated field.
        name = builtin[max(code.builtinCode, code.deprecatedBuiltinCode)]
        found.add(f"CUSTOM:{code.customCode.decode()}" if name == "CUSTOM" else name)
    return sorted(found)


def from_saved_model(path: Path, signature: str) -> bytes:
    """Converts one signature of a SavedModel to float32 of builtin operations; returns the content of the file."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(path), signature_keys=[signature])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    return converter.convert()


def cast_matrices(float32: bytes, pattern: str = ".*") -> bytes:
    """Stores the matrices of a file in float16.

    Args:
        float32: The content of the float32 file.
        pattern: Regular expression of the operations' names whose matrices are cast.

    Returns:
        The content of the new file. Convolutions and biases, a hundredth of a model, stay in float32: what a
        convolution says of a checkerboard is a small difference of large products.
    """
    from ai_edge_quantizer import qtyping, quantizer
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    quantization = quantizer.Quantizer(float32)
    quantization.update_quantization_recipe(
        pattern,
        qtyping.TFLOperationName.FULLY_CONNECTED,
        qtyping.OpQuantizationConfig(
            weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT),
            compute_precision=qtyping.ComputePrecision.FLOAT,
            explicit_dequantize=True,
        ),
        AlgorithmName.FLOAT_CASTING,
    )
    return bytes(quantization.quantize().quantized_model)


def quantize_weights(float32: bytes, pattern: str = ".*") -> bytes:
    """Stores the matrices of a file in int8; activations are quantised as they come.

    Args:
        float32: As in `cast_matrices`.
        pattern: As in `cast_matrices`.

    Returns:
        The content of the new file.
    """
    from ai_edge_quantizer import qtyping, quantizer

    quantization = quantizer.Quantizer(float32)
    quantization.add_dynamic_config(pattern, qtyping.TFLOperationName.FULLY_CONNECTED, num_bits=8)
    return bytes(quantization.quantize().quantized_model)


def quantize_statically(
    float32: bytes, operations: Sequence[tuple[str, str]], calibration: list[dict[str, Any]], signature: str
) -> bytes:
    """Stores weights and activations of some operations in int8.

    Args:
        float32: As in `cast_matrices`.
        operations: Regular expressions of names, and names of kinds of operations in ai-edge-quantizer.
        calibration: Inputs by name, which set the ranges.
        signature: The signature that takes them.

    Returns:
        The content of the new file.
    """
    from ai_edge_quantizer import calibrator, qtyping, quantizer, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    quantization = quantizer.Quantizer(float32)
    for pattern, kind in operations:
        quantization.add_static_config(
            pattern, qtyping.TFLOperationName[kind], activation_num_bits=8, weight_num_bits=8
        )
    recipe = recipe_manager.RecipeManager()
    recipe.load_quantization_recipe(quantization.get_quantization_recipe())
    # The whole range that was seen; the default, a moving average over inputs, clips.
    ranges = calibrator.Calibrator(float32, qsv_update_func=qsv_utils.min_max_update)
    ranges.calibrate({signature: calibration}, recipe)
    return bytes(quantization.quantize(ranges.get_model_qsvs()).quantized_model)


def _quantize_fully(float32: bytes, calibration: npt.NDArray[np.float32]) -> bytes:
    # The network. Sigmoid and mask stay in float32: a share of a small sum needs more than 256 levels.
    operations = (
        (".*", "CONV_2D"),
        (".*", "FULLY_CONNECTED"),
        (".*coder.*", "RESHAPE"),
        (".*", "STRIDED_SLICE"),
    )
    return quantize_statically(
        float32, operations, [{INPUT: mixture[np.newaxis]} for mixture in calibration], SIGNATURE
    )
