"""A live separator's step as TFLite and ONNX files: a block and the state in, sources and the next state out."""

from pathlib import Path

import tensorflow as tf

from export.formats import failures_of
from export.writers import onnx as onnx_files
from export.writers import tflite
from vae_bss_tf.live.model import LiveVAE
from vae_bss_tf.live.runtime import BLOCK, NEXT, SIGNATURE, SOURCES, State

# What the step needs beyond the offline models' operations: its transform picks bins, and its level is limited.
LIVE_TFLITE_OPERATIONS = tflite.ALLOWED_OPERATIONS | {"GATHER", "MINIMUM", "NEG"}
LIVE_ONNX_OPERATIONS = onnx_files.ALLOWED_OPERATIONS | {"Min", "Sigmoid"}
_NETWORK = ".*/dense.*"  # the network's own products, not those of the transform


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
        float32 = tflite.from_saved_model(saved_model, SIGNATURE)
    writers = {
        "tflite_float32": lambda: float32,
        "tflite_float16": lambda: tflite.cast_matrices(float32, _NETWORK),
        "tflite_dynamic_int8": lambda: tflite.quantize_weights(float32, _NETWORK),
        "tflite_full_int8": lambda: tflite.quantize_statically(
            float32, [(_NETWORK, "FULLY_CONNECTED")], calibration, SIGNATURE
        ),
        "onnx_float32": lambda: _onnx(saved_model),
    }
    for name, path in outputs.items():
        with failures_of(name):
            path.write_bytes(writers[name]())


def _onnx(saved_model: Path) -> bytes:
    import onnx

    model = onnx_files.from_saved_model(saved_model, SIGNATURE)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()
