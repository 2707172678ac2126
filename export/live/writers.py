"""A live separator's step as TFLite and ONNX files: a block and the state in, sources and the next state out."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from export.formats import failures_of
from export.writers.onnx import ALLOWED_OPERATIONS as ONNX_OPERATIONS
from export.writers.onnx import OPSET
from export.writers.tflite import ALLOWED_OPERATIONS as TFLITE_OPERATIONS
from vae_bss_tf.live.model import LiveVAE
from vae_bss_tf.live.runtime import BLOCK, NEXT, SIGNATURE, SOURCES

# What the step needs beyond the offline models' operations: its transform picks bins, and its level is limited.
LIVE_TFLITE_OPERATIONS = TFLITE_OPERATIONS | {"GATHER", "MINIMUM", "NEG"}
LIVE_ONNX_OPERATIONS = ONNX_OPERATIONS | {"Min", "ReduceMax", "Sigmoid"}
_NETWORK = ".*/dense.*"  # the network's own products, not those of the transform

State = dict[str, npt.NDArray[np.float32]]


def write_saved_model(model: LiveVAE, path: Path) -> None:
    """Writes the step of one signal as a SavedModel that the converters read.

    Args:
        model: The trained model.
        path: The folder to make.
    """
    specs = {BLOCK: tf.TensorSpec((1, model.config.hop_length), tf.float32, name=BLOCK)}
    specs |= {name: tf.TensorSpec(zero.shape, tf.float32, name=name) for name, zero in model.initial_state().items()}

    @tf.function(autograph=False)
    def step(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        block = inputs.pop(BLOCK)
        sources, state = model.step(block, inputs)
        return {SOURCES: sources, **{f"{NEXT}{name}": value for name, value in state.items()}}

    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    tf.saved_model.save(module, str(path), signatures={SIGNATURE: step.get_concrete_function(**specs)})


def convert(saved_model: Path, outputs: dict[str, Path], calibration: list[State]) -> None:
    """Converts the SavedModel. Meant for a process of its own: the converters leak memory and print.

    Args:
        saved_model: As `write_saved_model` writes it.
        outputs: Names of live formats, and the file to write for each.
        calibration: Inputs of some hundred steps, which set the ranges of full int8.
    """
    with failures_of("tflite_float32"):
        converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model), signature_keys=[SIGNATURE])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        float32 = converter.convert()
    writers = {
        "tflite_float32": lambda: float32,
        "tflite_float16": lambda: _cast(float32),
        "tflite_dynamic_int8": lambda: _dynamic(float32),
        "tflite_full_int8": lambda: _static(float32, calibration),
        "onnx_float32": lambda: _onnx(saved_model),
    }
    for name, path in outputs.items():
        with failures_of(name):
            path.write_bytes(writers[name]())


def _cast(float32: bytes) -> bytes:
    from ai_edge_quantizer import qtyping, quantizer
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    quantization = quantizer.Quantizer(float32)
    quantization.update_quantization_recipe(
        _NETWORK,
        qtyping.TFLOperationName.FULLY_CONNECTED,
        qtyping.OpQuantizationConfig(
            weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT),
            compute_precision=qtyping.ComputePrecision.FLOAT,
            explicit_dequantize=True,
        ),
        AlgorithmName.FLOAT_CASTING,
    )
    return bytes(quantization.quantize().quantized_model)


def _dynamic(float32: bytes) -> bytes:
    from ai_edge_quantizer import qtyping, quantizer

    quantization = quantizer.Quantizer(float32)
    quantization.add_dynamic_config(_NETWORK, qtyping.TFLOperationName.FULLY_CONNECTED, num_bits=8)
    return bytes(quantization.quantize().quantized_model)


def _static(float32: bytes, calibration: list[State]) -> bytes:
    from ai_edge_quantizer import calibrator, qtyping, quantizer, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    quantization = quantizer.Quantizer(float32)
    quantization.add_static_config(
        _NETWORK, qtyping.TFLOperationName.FULLY_CONNECTED, activation_num_bits=8, weight_num_bits=8
    )
    recipe = recipe_manager.RecipeManager()
    recipe.load_quantization_recipe(quantization.get_quantization_recipe())
    ranges = calibrator.Calibrator(float32, qsv_update_func=qsv_utils.min_max_update)
    ranges.calibrate({SIGNATURE: calibration}, recipe)
    return bytes(quantization.quantize(ranges.get_model_qsvs()).quantized_model)


def _onnx(saved_model: Path) -> bytes:
    import onnx
    import tf2onnx

    loaded = tf.saved_model.load(str(saved_model))  # kept: its variables live as long as it does
    signature = loaded.signatures[SIGNATURE]
    specs = signature.structured_input_signature[1]
    names = sorted(specs)

    def step(*values: tf.Tensor) -> dict[str, tf.Tensor]:
        return signature(**dict(zip(names, values, strict=True)))

    model, _ = tf2onnx.convert.from_function(
        tf.function(step, autograph=False), input_signature=[specs[name] for name in names], opset=OPSET
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()
