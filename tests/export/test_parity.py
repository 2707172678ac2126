"""The gate lets equal files pass and stops broken ones, of each kind."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import Builder

from export.formats import FORMATS, ExportError, get_formats
from export.gate import int8_weights as weights
from export.gate import parity
from export.writers import saved_model
from vae_bss_tf.datasets import load_bank
from vae_bss_tf.datasets.image_mixtures import evaluation_mixtures
from vae_bss_tf.model import MultiSourceVAE


def edit_tflite(source: Path, target: Path, edit) -> None:
    model = schema.ModelT.InitFromPackedBuf(source.read_bytes(), 0)
    edit(model)
    builder = Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    target.write_bytes(bytes(builder.Output()))


def flip_tflite_weight(source: Path, target: Path) -> None:
    """Flips the top bit, in float the sign, of one weight of the last layer: of float ones the largest."""

    def flip(model) -> None:
        graph = model.subgraphs[0]
        codes = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in model.operatorCodes]
        dense = schema.BuiltinOperator.FULLY_CONNECTED
        last = [operator for operator in graph.operators if codes[operator.opcodeIndex] == dense][-1]
        tensor = graph.tensors[last.inputs[1]]
        buffer = model.buffers[tensor.buffer]
        if buffer.data is None:  # float16: the weights come out of a DEQUANTIZE
            tensor = graph.tensors[next(o.inputs[0] for o in graph.operators if last.inputs[1] in o.outputs)]
            buffer = model.buffers[tensor.buffer]
        width = {schema.TensorType.FLOAT32: 4, schema.TensorType.FLOAT16: 2, schema.TensorType.INT8: 1}[tensor.type]
        kind = {4: np.float32, 2: np.float16, 1: np.int8}[width]
        data = np.array(buffer.data, np.uint8)
        largest = int(np.argmax(np.abs(data.view(kind).astype(np.float32))))
        data[(largest + 1) * width - 1] ^= 0x80
        buffer.data = data

    edit_tflite(source, target, flip)


def rename_tflite_output(source: Path, target: Path) -> None:
    def rename(model) -> None:
        output = next(o for o in model.signatureDefs[0].outputs if o.name == b"sources")
        output.name = b"output_0"

    edit_tflite(source, target, rename)


def flip_onnx_weight(source: Path, target: Path) -> None:
    """The same for ONNX."""
    model = onnx.load(source)
    weights = [t for t in model.graph.initializer if len(t.dims) == 2 and t.dims[-1] == 64]
    values = onnx.numpy_helper.to_array(weights[-1]).copy()
    largest = np.unravel_index(np.argmax(np.abs(values.astype(np.float32))), values.shape)
    values[largest] = -values[largest] if values.dtype == np.float32 else values[largest] ^ np.int8(-128)
    weights[-1].CopyFrom(onnx.numpy_helper.from_array(values, weights[-1].name))
    onnx.save(model, target)


def rename_onnx_output(source: Path, target: Path) -> None:
    model = onnx.load(source)
    for node in model.graph.node:
        node.output[:] = ["output_0" if name == "sources" else name for name in node.output]
    for output in model.graph.output:
        output.name = "output_0" if output.name == "sources" else output.name
    onnx.save(model, target)


def add_custom_onnx_operation(source: Path, target: Path) -> None:
    model = onnx.load(source)
    model.graph.node[0].domain = "our.own"
    onnx.save(model, target)


@pytest.fixture(scope="module")
def reference(model):
    held_out = evaluation_mixtures(load_bank("digits", "test"), num_mixed=(2,), num_mixtures=100)

    def separate(mixtures):
        return model.predict({"mixture": mixtures}, verbose=0)

    return parity.Reference.of(separate, held_out, parity.extreme_mixtures((8, 8)), weights.kernels(model))


def gate(name, path, reference, work):
    return parity.check(FORMATS[name], path, reference, work)


IMAGE_FORMATS = [f.name for f in get_formats(None, audio=False)]
TFLITE = [name for name in IMAGE_FORMATS if name.startswith("tflite")]
ONNX = [name for name in IMAGE_FORMATS if name.startswith("onnx")]


@pytest.mark.parametrize("name", TFLITE + ONNX)
def test_a_rewritten_but_equal_file_passes(name, exported, reference, tmp_path):
    path = tmp_path / FORMATS[name].path
    if name in TFLITE:
        edit_tflite(exported / FORMATS[name].path, path, lambda model: None)
    else:
        path.write_bytes((exported / FORMATS[name].path).read_bytes())
    report = gate(name, path, reference, tmp_path)
    assert abs(report["changes_db"]["si_sdr"]) <= FORMATS[name].max_change_db


@pytest.mark.parametrize("name", TFLITE + ONNX)
def test_a_flipped_weight_is_caught(name, exported, reference, tmp_path):
    path = tmp_path / FORMATS[name].path
    flip = flip_tflite_weight if name in TFLITE else flip_onnx_weight
    flip(exported / FORMATS[name].path, path)
    with pytest.raises(ExportError, match=f"^{name}: .*(differs|changes)"):
        gate(name, path, reference, tmp_path)


@pytest.mark.parametrize("name", ["tflite_float32", "onnx_float32"])
def test_a_renamed_output_is_caught(name, exported, reference, tmp_path):
    path = tmp_path / FORMATS[name].path
    rename = rename_tflite_output if name in TFLITE else rename_onnx_output
    rename(exported / FORMATS[name].path, path)
    with pytest.raises(ExportError, match=f"^{name}: its outputs are .*output_0"):
        gate(name, path, reference, tmp_path)


@pytest.mark.parametrize(("name", "value", "allowed"), [("estimates", 0.9, 1e-5), ("latent_mean", 20.0, 2e-4)])
def test_the_error_of_a_large_latent_is_relative(name, value, allowed, reference):
    def outputs(first):
        changed = reference.outputs[name].copy()
        changed.flat[0] = first
        return {**reference.outputs, name: changed}

    known = dataclasses.replace(reference, outputs=outputs(value))
    parity.compare(FORMATS["saved_model"], outputs(value + 0.9 * allowed), known)
    with pytest.raises(ExportError, match=f"{name} differs"):
        parity.compare(FORMATS["saved_model"], outputs(value + 1.2 * allowed), known)


def test_a_wrong_weight_in_a_saved_model_is_caught(model, reference, tmp_path):
    wrong = MultiSourceVAE(model.config)
    weights = model.get_weights()
    kernel = max(range(len(weights)), key=lambda i: weights[i].size)
    weights[kernel].flat[np.argmax(np.abs(weights[kernel]))] *= -1
    wrong.set_weights(weights)
    saved_model.write(wrong, tmp_path / "wrong")
    with pytest.raises(ExportError, match=r"^saved_model: .*differs from the model"):
        gate("saved_model", tmp_path / "wrong", reference, tmp_path)


def test_a_renamed_output_of_a_saved_model_is_caught(exported, reference, tmp_path):
    loaded = tf.saved_model.load(exported / "saved_model/1")
    separate = loaded.signatures["separate"]

    def renamed(mixture):
        outputs = separate(mixture=mixture)
        return {"output_0" if name == "sources" else name: value for name, value in outputs.items()}

    function = tf.function(renamed, input_signature=[tf.TensorSpec([None, 8, 8], name="mixture")])
    tf.saved_model.save(loaded, tmp_path / "renamed", signatures={"separate": function})
    with pytest.raises(ExportError, match=r"^saved_model: its outputs are .*output_0"):
        gate("saved_model", tmp_path / "renamed", reference, tmp_path)


@pytest.mark.parametrize("name", ["tflite_float32", "onnx_float32"])
def test_a_file_that_is_no_model_is_caught(name, reference, tmp_path):
    path = tmp_path / FORMATS[name].path
    path.write_bytes(b"no model" * 100)
    with pytest.raises(ExportError, match=name):
        gate(name, path, reference, tmp_path)


def test_a_custom_operation_of_onnx_is_refused(exported, reference, tmp_path):
    add_custom_onnx_operation(exported / "float32.onnx", tmp_path / "float32.onnx")
    with pytest.raises(ExportError, match=r"^onnx_float32: our\.own:\w+ is not on the list"):
        gate("onnx_float32", tmp_path / "float32.onnx", reference, tmp_path)


def test_a_flex_operation_of_tflite_is_refused(reference, tmp_path):
    function = tf.function(tf.math.erf, input_signature=[tf.TensorSpec([1, 8, 8])])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], tf.Module())
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    (tmp_path / "float32.tflite").write_bytes(converter.convert())
    with pytest.raises(ExportError, match=r"^tflite_float32: CUSTOM:FlexErf is not on the list"):
        gate("tflite_float32", tmp_path / "float32.tflite", reference, tmp_path)


def test_the_bounds_are_bounds(model, reference):
    outputs = {name: value.copy() for name, value in reference.outputs.items()}
    assert parity.compare(FORMATS["saved_model"], outputs, reference)["max_abs_error"]["sources"] == 0
    outputs["latent_mean"][-1, 0, 0] += 2e-5
    with pytest.raises(ExportError, match="latent_mean differs"):
        parity.compare(FORMATS["saved_model"], outputs, reference)
    outputs["latent_mean"][-1, 0, 0] = np.nan
    with pytest.raises(ExportError, match="latent_mean holds NaN"):
        parity.compare(FORMATS["saved_model"], outputs, reference)


def test_sources_that_do_not_sum_to_the_mixture_are_caught(reference):
    outputs = {name: value.copy() for name, value in reference.outputs.items()}
    outputs["sources"][0, 0] += 0.001
    with pytest.raises(ExportError, match=r"^tflite_full_int8: the sources' sum"):
        parity.compare(FORMATS["tflite_full_int8"], outputs, reference)


def test_the_extremes_are_extreme():
    extremes = parity.extreme_mixtures((8, 8))
    assert extremes.shape == (6, 8, 8)
    assert extremes.dtype == np.float32
    assert not extremes[0].any()
    assert (extremes[1] == 1).all()
    assert extremes.min() == 0
    assert extremes.max() == 1
