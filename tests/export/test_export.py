"""What `python -m export` writes, and how it behaves when something is wrong."""

import contextlib
import json
import shlex
import shutil
import signal
import subprocess
import sys

import numpy as np
import onnx
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

from export import pipeline
from export.__main__ import main
from export.formats import FORMATS, ExportError, check_libraries, get_formats
from export.gate.workers import converters
from export.manifest import training_command
from export.pipeline import export_run
from export.writers import saved_model, tflite
from export.writers.onnx import OPSET
from training import options
from training.fit import completed
from training.run import Run, exclusive
from training.warm_start import begin_from, source_of
from vae_bss_tf.config import DataConfig, ModelConfig, Preset
from vae_bss_tf.errors import CheckpointError
from vae_bss_tf.files import sha256
from vae_bss_tf.model import MultiSourceVAE
from vae_bss_tf.presets import PRESETS
from vae_bss_tf.runtime import OUTPUTS

IMAGE_FORMATS = [f.name for f in get_formats(None, audio=False)]
SHAPES = {"sources": (2, 8, 8), "estimates": (2, 8, 8), "latent_mean": (2, 5), "latent_log_variance": (2, 5)}


def content(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def leftovers(target):
    return [p.name for p in target.parent.iterdir() if p != target]


def test_the_manifest_lists_every_file(exported, manifest, run):
    listed = {name for entry in manifest["formats"].values() for name in entry["files"]}
    others = {"manifest.json", "README.md", "training.png", "config.json", "metrics.json", "weights.npz"}
    assert listed | others == {str(name) for name in content(exported)}
    for entry in manifest["formats"].values():
        for name, file in entry["files"].items():
            assert file == {"bytes": (exported / name).stat().st_size, "sha256": sha256(exported / name)}
        assert entry["bytes"] == sum(file["bytes"] for file in entry["files"].values())
        assert entry["latency_ms"] > 0
    assert set(manifest["formats"]) == set(IMAGE_FORMATS)
    assert manifest["config_hash"] == run.preset.config_hash()
    assert manifest["preset"] == run.preset.to_dict()
    assert manifest["onnx_opset"] == OPSET
    assert manifest["versions"]["tensorflow"] == tf.__version__


def test_the_manifest_says_how_near_each_file_is(manifest):
    for name, entry in manifest["formats"].items():
        bound = FORMATS[name].max_error
        assert set(entry["max_abs_error"]) == set(OUTPUTS)
        assert bound is None or max(entry["max_abs_error"].values()) <= bound
        assert abs(entry["changes_db"]["si_sdr"]) <= FORMATS[name].max_change_db


def test_the_card_names_every_file_and_its_score(exported, manifest):
    card = (exported / "README.md").read_text()
    for entry in manifest["formats"].values():
        assert f"| `{entry['path']}` |" in card
        assert f"| {entry['scores_db']['si_sdr']:.2f} |" in card
    assert max(len(line) for line in card.splitlines() if not line.startswith(("|", "python"))) <= 120


def test_nothing_is_left_beside_the_export(exported):
    assert leftovers(exported) == []


def test_saved_model_signatures_by_name(exported, model, mixtures):
    loaded = tf.saved_model.load(exported / "saved_model/1")
    assert set(loaded.signatures) == {"separate", "encode", "decode", "settings", "serving_default"}
    expected = model({"mixture": mixtures})
    for name in ("separate", "serving_default"):
        found = loaded.signatures[name](mixture=tf.constant(mixtures))
        assert set(found) == set(OUTPUTS)
        for output in OUTPUTS:
            np.testing.assert_allclose(found[output], expected[output], atol=1e-6)
    posterior = loaded.signatures["encode"](mixture=tf.constant(mixtures))
    np.testing.assert_allclose(posterior["latent_mean"], expected["latent_mean"], atol=1e-6)
    np.testing.assert_allclose(posterior["latent_log_variance"], expected["latent_log_variance"], atol=1e-6)
    estimates = loaded.signatures["decode"](latents=posterior["latent_mean"])["estimates"]
    np.testing.assert_allclose(estimates, expected["estimates"], atol=1e-6)


def test_saved_model_samples_nothing(exported, mixtures):
    separate = tf.saved_model.load(exported / "saved_model/1").signatures["separate"]
    first, second = (separate(mixture=tf.constant(mixtures))["sources"].numpy() for _ in range(2))
    assert (first == second).all()


def test_saved_model_stores_each_weight_once(exported, model):
    data = next((exported / "saved_model/1/variables").glob("*.data*"))
    weights = sum(4 * weight.size for weight in model.get_weights())
    assert weights <= data.stat().st_size < 1.1 * weights + 10_000


@pytest.mark.parametrize("name", [name for name in IMAGE_FORMATS if name.startswith("tflite")])
def test_tflite_files_are_of_fixed_shape(name, exported):
    interpreter = Interpreter(model_path=str(exported / FORMATS[name].path))
    runner = interpreter.get_signature_runner("separate")
    assert runner.get_input_details()["mixture"]["shape_signature"].tolist() == [1, 8, 8]
    details = runner.get_output_details()
    assert {k: tuple(v["shape"][1:]) for k, v in details.items()} == SHAPES
    assert all(detail["dtype"] == np.float32 for detail in (*details.values(), *runner.get_input_details().values()))
    assert all((tensor["shape_signature"] >= 0).all() for tensor in interpreter.get_tensor_details())


def test_tflite_files_take_any_number_of_mixtures_when_asked(model, mixtures, tmp_path):
    saved_model.write(model, tmp_path / "any")
    paths = {name: tmp_path / FORMATS[name].path for name in ("tflite_float32", "tflite_full_int8")}
    tflite.convert(tmp_path / "any", paths, mixtures)
    expected = model({"mixture": mixtures})["sources"]
    for path, tolerance in zip(paths.values(), (1e-5, 0.1), strict=True):
        separate = Interpreter(model_path=str(path)).get_signature_runner("separate")
        for batch in (1, len(mixtures), 3):
            found = separate(mixture=mixtures[:batch])["sources"]
            np.testing.assert_allclose(found, expected[:batch], atol=tolerance)


@pytest.mark.parametrize("name", [name for name in IMAGE_FORMATS if name.startswith("onnx")])
def test_onnx_files_are_valid_and_take_any_number_of_mixtures(name, exported):
    loaded = onnx.load(exported / FORMATS[name].path)
    onnx.checker.check_model(loaded, full_check=True)
    assert {o.domain: o.version for o in loaded.opset_import}[""] == OPSET
    assert [value.name for value in loaded.graph.input] == ["mixture"]
    assert {value.name for value in loaded.graph.output} == set(OUTPUTS)
    for value in (*loaded.graph.input, *loaded.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_value == 0


def test_half_precision_is_that_of_every_matrix(exported, weight_types):
    file = exported / "float16.tflite"
    assert weight_types(file, schema.BuiltinOperator.FULLY_CONNECTED) == {schema.TensorType.FLOAT16}
    assert weight_types(file, schema.BuiltinOperator.CONV_2D) == {schema.TensorType.FLOAT32}


def test_half_precision_is_smaller_and_int8_smaller_still(manifest, model):
    size = {name: entry["bytes"] for name, entry in manifest["formats"].items()}
    weights = sum(4 * weight.size for weight in model.get_weights() if weight.ndim == 2)
    assert size["tflite_float32"] - size["tflite_float16"] > 0.4 * weights
    # The rest of so small a model, a scale for each channel above all, weighs as much as its weights.
    for name in ("tflite_dynamic_int8", "tflite_full_int8"):
        assert size["tflite_float32"] - size[name] > 0.4 * weights


def test_an_export_is_a_run_to_go_on_from(exported, manifest, run, model, mixtures, tmp_path):
    again = Run.load(exported)
    assert (again.preset, again.system, again.metrics) == (run.preset, run.system, run.metrics)
    np.testing.assert_allclose(again.model().separate(mixtures), model.separate(mixtures), atol=5e-3)
    started = MultiSourceVAE(run.preset.model)
    begin_from(started, source_of(exported, "vae", None))
    for ours, theirs in zip(started.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    assert list(manifest["weights"]) == ["weights.npz"]
    command = ["--run", str(exported), "--to", str(tmp_path / "again"), "--formats", "tflite_float32"]
    assert main(command) == 0
    with np.load(tmp_path / "again" / "weights.npz") as ours, np.load(exported / "weights.npz") as theirs:
        assert {name: ours[name].tobytes() for name in ours} == {name: theirs[name].tobytes() for name in theirs}


def test_damaged_weights_are_refused(exported, tmp_path):
    shutil.copytree(exported, tmp_path / "export", ignore=shutil.ignore_patterns("*.tflite", "*.onnx", "saved_model*"))
    place = tmp_path / "export" / "weights.npz"
    whole, rng = place.read_bytes(), np.random.default_rng(0)
    for position in rng.integers(len(whole) - 1_000, size=8):  # what follows is the list of the archive's members
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(8))
        place.write_bytes(damaged)
        with contextlib.suppress(CheckpointError):
            weights = Run.load(tmp_path / "export").model().get_weights()
            for ours, theirs in zip(weights, Run.load(exported).model().get_weights(), strict=True):
                np.testing.assert_array_equal(ours, theirs)
    place.write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match="copy it again"):
        Run.load(tmp_path / "export").model()
    place.write_bytes(whole)
    config = json.loads((exported / "config.json").read_text())
    config["model"]["hidden_units"] = [10**5, 10**5]
    (tmp_path / "export" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="needs more"):
        Run.load(tmp_path / "export").model()


def test_a_model_of_mixed_precision_is_exported_in_float32(run, mixtures):
    import keras

    trained = run.model()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = MultiSourceVAE(run.preset.model)
        half.set_weights(trained.get_weights())
    finally:
        keras.config.set_dtype_policy("float32")

    class MixedRun(Run):
        def model(self):
            return half

    exported = pipeline.float32_model(MixedRun(run.path, run.preset, "vae"))
    np.testing.assert_allclose(exported.separate(mixtures), trained.separate(mixtures), atol=1e-6)


class TestBadInput:
    """One line on stderr, exit code 2, nothing written, and an earlier export as it was."""

    def refused(self, capsys, *arguments):
        assert main([str(argument) for argument in arguments]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: ")
        return error

    def test_no_such_run(self, capsys, tmp_path):
        error = self.refused(capsys, "--run", tmp_path / "none", "--to", tmp_path / "out")
        assert "is no run folder" in error
        assert list(tmp_path.iterdir()) == []

    def test_a_run_without_weights(self, capsys, run, tmp_path):
        (tmp_path / "run").mkdir()
        for name in ("config.json", "metrics.json"):
            shutil.copy(run.path / name, tmp_path / "run")
        error = self.refused(capsys, "--run", tmp_path / "run", "--to", tmp_path / "out")
        assert "model.keras is not there" in error
        assert leftovers(tmp_path / "run") == []

    def test_an_unfinished_run(self, capsys, run, tmp_path):
        unfinished = shutil.copytree(run.path, tmp_path / "run")
        (unfinished / "metrics.json").unlink()
        error = self.refused(capsys, "--run", unfinished, "--to", tmp_path / "out")
        assert "is not finished: it has no metrics.json; finish it with --resume" in error
        assert leftovers(unfinished) == []

    def test_a_run_that_is_being_trained(self, capsys, run, tmp_path):
        with exclusive(run.path):
            error = self.refused(capsys, "--run", run.path, "--to", tmp_path / "out")
        assert "is being trained or exported by another process" in error
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_cannot_be_made(self, capsys, run, tmp_path):
        (tmp_path / "file").write_text("")
        error = self.refused(capsys, "--run", run.path, "--to", tmp_path / "file" / "out")
        assert "cannot be made" in error

    def test_an_unknown_format(self, capsys, run, tmp_path):
        error = self.refused(capsys, "--run", run.path, "--to", tmp_path / "out", "--formats", "tflite_float23")
        assert "Did you mean 'tflite_float32'?" in error

    def test_a_library_that_is_missing(self, capsys, run, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "tf2onnx", None)
        error = self.refused(capsys, "--run", run.path, "--to", tmp_path / "out")
        assert error == "error: tf2onnx is not installed; pip install 'vae-bss-tf[export]' brings it."
        assert list(tmp_path.iterdir()) == []
        check_libraries(["saved_model", "tflite_float32"])

    def test_a_folder_of_something_else(self, capsys, run, tmp_path):
        (tmp_path / "precious").write_text("data")
        error = self.refused(capsys, "--run", run.path, "--to", tmp_path, "--force")
        assert "is no export of ours" in error
        assert (tmp_path / "precious").read_text() == "data"

    def test_the_export_of_a_live_separator(self, capsys, run, tmp_path):
        target = shutil.copytree("saved_models/live", tmp_path / "live")
        before = content(target)
        error = self.refused(capsys, "--run", run.path, "--to", target, "--force")
        assert "is no export of ours, or one of a live separator" in error
        assert content(target) == before

    def test_an_earlier_export_without_force(self, capsys, run, exported):
        before = content(exported)
        error = self.refused(capsys, "--run", run.path, "--to", exported)
        assert "--force" in error
        assert content(exported) == before


@pytest.fixture
def earlier(exported, tmp_path):
    """An earlier export in the way."""
    return shutil.copytree(exported, tmp_path / "out")


def test_force_replaces_an_earlier_export_and_what_a_killed_one_left(run, earlier):
    killed = (
        "import os, signal, sys; from pathlib import Path; from vae_bss_tf.files import replacing_folder\n"
        "with replacing_folder(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", killed, str(earlier)], check=False)
    assert leftovers(earlier) != []
    export_run(run.path, earlier, names=["saved_model"], force=True, command="again", report=lambda line: None)
    assert json.loads((earlier / "manifest.json").read_text())["command"] == "again"
    assert leftovers(earlier) == []


def test_a_format_that_fails_leaves_the_earlier_export(run, earlier, capsys, monkeypatch):
    before = content(earlier)

    def write_another(model, path, **settings):
        write(MultiSourceVAE(model.config), path, **settings)

    write = saved_model.write
    monkeypatch.setattr(saved_model, "write", write_another)
    arguments = ["--run", str(run.path), "--to", str(earlier), "--formats", "saved_model", "--force"]
    assert main(arguments) == 2
    assert "error: saved_model: " in capsys.readouterr().err
    assert content(earlier) == before
    assert leftovers(earlier) == []


def test_an_interrupted_export_leaves_the_earlier_one(run, earlier, capsys, monkeypatch):
    before = content(earlier)
    monkeypatch.setattr(pipeline, "check", lambda *arguments: signal.raise_signal(signal.SIGTERM))
    arguments = ["--run", str(run.path), "--to", str(earlier), "--formats", "saved_model", "--force"]
    handler = signal.getsignal(signal.SIGTERM)
    try:
        assert main(arguments) == 130
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert "interrupted" in capsys.readouterr().err
    assert content(earlier) == before
    assert leftovers(earlier) == []


@pytest.mark.parametrize(
    ("preset", "command"),
    [
        (PRESETS["mnist-paper"], "python -m training.fit --preset mnist-paper"),
        (
            Preset(
                ModelConfig(hidden_units=(64, 32)), DataConfig("mnist"), PRESETS["mnist-dense"].recipe.replace(seed=3)
            ),
            "python -m training.fit --preset mnist-dense --set 'model.hidden_units=[64,32]' --set recipe.seed=3",
        ),
    ],
)
def test_the_training_command_gives_the_settings(preset, command, tmp_path):
    assert training_command(Run(tmp_path, preset, "vae")) == command
    given = options.parser().parse_args(shlex.split(command)[3:])
    assert options.resolve(given)[1] == preset


@pytest.mark.parametrize(
    ("system", "words"),
    [
        ("ae", ["--preset", "mnist-dense", "--batch-size", "32"]),
        ("remixit", ["--preset", "mnist", "--set", "recipe.separate.learning_rate=3e-4"]),
        ("vae", ["--preset", "mnist", "--num-sources", "3"]),
        ("vae", ["--preset", "mnist", "--num-sources", "4", "--num-mixed", "1,2,3,4"]),
    ],
)
def test_the_training_command_of_any_run_trains_it_again(system, words, tmp_path):
    def trained(given):
        read = options.parser().parse_args(given)
        return completed(options.resolve(read)[1], read.system)

    preset = trained([*words, "--system", system])
    command = shlex.split(training_command(Run(tmp_path, preset, system, "runs/before")))
    assert command[command.index("--init") + 1] == "runs/before"
    assert trained(command[3:]) == preset


@pytest.mark.parametrize(
    "words",
    [[], ["--size", "28", "--channels", "1"], ["--size", "32x40"], ["--preset", "mnist", "--size", "28"]],
)
def test_the_training_command_of_pictures_trains_it_again_on_their_folder(words, tmp_path):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "one.png")

    def resolved(given):
        read = options.parser().parse_args([*given, "--data-dir", str(tmp_path)])
        return completed(options.resolve(read)[1], "vae")

    preset = resolved(["--dataset", "images", *words])
    assert resolved(shlex.split(training_command(Run(tmp_path, preset, "vae")))[3:]) == preset


def test_the_training_command_of_more_sources_than_remixing_takes(tmp_path):
    words = ["--preset", "digits", "--num-sources", "5", "--phases", "separate"]
    preset = options.resolve(options.parser().parse_args(words))[1]
    command = shlex.split(training_command(Run(tmp_path, preset, "vae")))
    assert options.resolve(options.parser().parse_args(command[3:]))[1] == preset


def test_a_converter_that_is_ended_from_outside_is_told():
    with pytest.raises(ExportError, match="a converter was ended from outside"), converters() as pool:
        pool.submit(signal.raise_signal, signal.SIGKILL).result()
