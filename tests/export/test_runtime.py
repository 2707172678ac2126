"""One interface over every format; no TensorFlow for `.tflite` and `.onnx`."""

import json
import resource
import shutil
import site
import subprocess
import venv
import zipfile
from concurrent import futures
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from export.formats import FORMATS, get_formats
from vae_bss_tf.errors import CheckpointError, ConfigError, DataError
from vae_bss_tf.runtime import OUTPUTS, load
from vae_bss_tf.runtime.loading import described
from vae_bss_tf.runtime.trusted import check_operations

IMAGE_FORMATS = [f.name for f in get_formats(None, audio=False)]
REPOSITORY = Path(__file__).resolve().parents[2]
# What the two runtimes install, and no more.
LIGHT = ("numpy", "numpy.libs", "ai_edge_litert", "onnxruntime", "flatbuffers", "google", "packaging", "tqdm")


@pytest.fixture(scope="module")
def light_python(tmp_path_factory):
    """The interpreter of an environment that holds the two runtimes, NumPy and this package, and no TensorFlow."""
    folder = tmp_path_factory.mktemp("light")
    venv.create(folder, with_pip=False)
    packages = next(folder.glob("lib/python*/site-packages"))
    installed = [Path(place) for place in site.getsitepackages()]
    for name in LIGHT:
        source = next((place / name for place in installed if (place / name).exists()), None)
        if source is not None:
            (packages / name).symlink_to(source)
    (packages / "vae_bss_tf").symlink_to(REPOSITORY / "vae_bss_tf")
    return folder / "bin" / "python"


@pytest.mark.parametrize("name", IMAGE_FORMATS)
def test_every_format_says_what_the_model_says(name, exported, manifest, model, mixtures, run):
    loaded = load(exported / FORMATS[name].path)
    expected = model.separate(mixtures)
    found = loaded.separate(mixtures)
    assert found.dtype == np.float32
    tolerance = FORMATS[name].max_error or 0.1
    np.testing.assert_allclose(found, expected, atol=tolerance)
    np.testing.assert_allclose(found[:-2], expected[:-2], atol=min(tolerance, 0.02))  # without silence and full scale
    np.testing.assert_allclose(found.sum(axis=1), mixtures, atol=1e-5)
    np.testing.assert_allclose(loaded.separate(mixtures[0]), expected[0], atol=tolerance)
    assert loaded.metadata.format == name.split("_")[0].replace("saved", "saved_model")
    assert loaded.metadata.preset == run.preset
    assert (loaded.metadata.num_sources, loaded.metadata.latent_dim, loaded.metadata.input_shape) == (2, 5, (8, 8))


def test_a_run_is_loaded_too(run, model, mixtures):
    loaded = load(run.path)
    np.testing.assert_allclose(loaded.separate(mixtures), model.separate(mixtures), atol=1e-6)
    assert loaded.metadata.format == "keras"
    assert loaded.metadata.preset == run.preset


def test_outputs_by_name_in_batches(exported, mixtures, model):
    expected = model.predict({"mixture": mixtures}, verbose=0)
    for path in (FORMATS["onnx_float32"].path, FORMATS["tflite_float32"].path):
        found = load(exported / path, num_threads=1).outputs(mixtures, batch_size=7)
        assert set(found) == set(OUTPUTS)
        for name in OUTPUTS:
            np.testing.assert_allclose(found[name], expected[name], atol=1e-5)


def test_an_export_folder_stands_for_its_most_exact_file(exported):
    assert load(exported).metadata.path == exported / FORMATS["onnx_float32"].path


def test_a_folder_of_versions_stands_for_the_latest(exported, tmp_path):
    for version in ("2", "10"):
        shutil.copytree(exported / "saved_model/1", tmp_path / "served" / version)
    assert load(tmp_path / "served").metadata.path.name == "10"


def test_a_file_alone_knows_its_shapes(exported, tmp_path, mixtures):
    alone = shutil.copy(exported / "float32.tflite", tmp_path)
    loaded = load(alone)
    assert loaded.metadata.preset is None
    assert (loaded.metadata.num_sources, loaded.metadata.input_shape) == (2, (8, 8))
    assert loaded.separate(mixtures[0]).shape == (2, 8, 8)


def test_without_tensorflow(light_python, exported, mixtures, model, tmp_path):
    np.save(tmp_path / "mixtures.npy", mixtures)
    script = f"""
import importlib.util, sys
import numpy as np
assert not any(map(importlib.util.find_spec, ("tensorflow", "keras", "scipy")))
from vae_bss_tf.runtime import load
mixtures = np.load(r"{tmp_path}/mixtures.npy")
for name in ("float32.tflite", "float32.onnx", ""):
    np.save(rf"{tmp_path}/{{name or 'folder'}}.npy", load(rf"{exported}/{{name}}").separate(mixtures))
from vae_bss_tf.errors import ConfigError
try:
    load(r"{exported}/saved_model/1")
except ConfigError as error:
    print(error)
"""
    done = subprocess.run([light_python, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "pip install 'vae-bss-tf[train]'" in done.stdout
    for name in ("float32.tflite", "float32.onnx", "folder"):
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), model.separate(mixtures), atol=1e-5)


def test_the_edge_program_needs_litert_and_numpy_only(light_python, exported, mixtures, tmp_path):
    program = REPOSITORY / "deploy/edge/separate.py"
    for given, name in ((mixtures, "many"), (mixtures[0], "one")):
        np.save(tmp_path / f"{name}.npy", given)
        arguments = [exported / "full_int8.tflite", tmp_path / f"{name}.npy", tmp_path / f"{name}_sources.npy"]
        subprocess.run([light_python, program, *arguments], check=True, capture_output=True)
        expected = load(exported / "full_int8.tflite").separate(given)
        np.testing.assert_allclose(np.load(arguments[2]), expected, atol=1e-5)


def test_a_missing_runtime_is_named(exported, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"vae-bss-tf\[onnx\]"):
        load(exported / "float32.onnx")


def test_bad_mixtures_are_refused(exported):
    loaded = load(exported)
    for mixtures, message in (
        (np.zeros((3, 7, 8)), "shape"),
        (np.full((8, 8), np.nan), "NaN"),
        (np.full((8, 8), 2.0), r"\[0, 1\]"),
        (np.zeros((0, 8, 8)), "no mixtures"),
    ):
        with pytest.raises(DataError, match=message):
            loaded.separate(mixtures)


@pytest.mark.parametrize("name", ["float32.tflite", "float32.onnx", "saved_model/1"])
def test_a_damaged_file_is_refused(name, exported, tmp_path):
    shutil.copytree(exported, tmp_path / "export")
    path = tmp_path / "export" / name
    damaged = next(path.glob("variables/*.data*")) if path.is_dir() else path
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="copy it again"):
        load(path)
    (tmp_path / "export/manifest.json").unlink()
    damaged.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="damaged or not ours"):
        load(path)


def test_other_paths_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="there is no model"):
        load(tmp_path / "none")
    with pytest.raises(CheckpointError, match="is no run, export"):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"system": "live"}')
    with pytest.raises(CheckpointError, match=r"is a live separator: python -m vae_bss_tf\.live takes it"):
        load(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(CheckpointError, match="damaged or not ours"):
        load(tmp_path)


def test_arguments_of_the_wrong_kind_are_refused(exported):
    for wrong in (None, 3, b"bytes", ["path"]):
        with pytest.raises(ConfigError, match="give a path or a URL"):
            load(wrong)
    for wrong in (0, -1, 1.5, "2", True):
        with pytest.raises(ConfigError, match="num_threads is"):
            load(exported, num_threads=wrong)
        with pytest.raises(ConfigError, match="batch_size is"):
            load(exported).separate(np.zeros((8, 8)), batch_size=wrong)
    for wrong in ("text", [[1], [1, 2]], [{}], [[10**400]]):
        with pytest.raises(DataError, match="no array of numbers"):
            load(exported).separate(wrong)
    with pytest.raises(DataError, match="infinite"):
        load(exported).separate(np.full((8, 8), 1e300))
    for wrong in ("a" * 300, "a\0b"):
        with pytest.raises(CheckpointError):
            load(wrong)


class TestThreads:
    @pytest.fixture(params=["keras", "saved_model", "tflite_float32", "tflite_full_int8", "onnx_float32"])
    def loaded(self, request, run, exported):
        return load(run.path if request.param == "keras" else exported / FORMATS[request.param].path)

    def test_each_thread_gets_the_answer_of_a_single_one(self, loaded, mixtures):
        batches = [mixtures[i : i + 1 + i % 3] for i in range(len(mixtures) - 3)] * 8
        with futures.ThreadPoolExecutor(8) as pool:
            found = list(pool.map(loaded.outputs, batches))
        for batch, outputs in zip(batches, found, strict=True):
            for name, expected in loaded.outputs(batch).items():
                np.testing.assert_array_equal(outputs[name], expected)


class TestTrust:
    @pytest.fixture
    def written(self, tmp_path):
        """Saves a module under a function that writes a file, and gives the SavedModel and that file."""
        target = tmp_path / "written"

        class Attack(tf.saved_model.experimental.TrackableResource):
            def _create_resource(self):
                return tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[])

            def _initialize(self):
                tf.io.write_file(str(target), "from a graph")

        module = tf.Module()
        module.attack = Attack()
        function = tf.function(lambda mixture: {"sources": 2 * mixture})
        signature = function.get_concrete_function(tf.TensorSpec([None, 8, 8], name="mixture"))
        tf.saved_model.save(module, tmp_path / "saved", signatures={"separate": signature})
        target.unlink(missing_ok=True)
        return tmp_path / "saved", target

    def test_a_graph_that_writes_a_file_is_not_run(self, written):
        path, target = written
        with pytest.raises(CheckpointError, match=r"holds WriteFile.*trust=True"):
            load(path)
        assert not target.exists()
        with pytest.raises(CheckpointError, match="no output 'estimates'"):
            load(path, trust=True)
        assert target.read_text() == "from a graph"

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda graph, saver: graph.ClearField("object_graph_def"), "no single graph"),
            (lambda graph, saver: graph.graph_def.node.add(name="x", op="ReadFile"), "holds ReadFile"),
            (lambda graph, saver: graph.graph_def.node.add(name="x", op=saver), "holds __inference"),
            (lambda graph, saver: graph.object_graph_def.concrete_functions[saver].SetInParent(), "holds .*SaveV2"),
            (
                lambda graph, saver: setattr(
                    graph.graph_def.library.function[0].node_def.add(op="PartitionedCall").attr["f"].func, "name", saver
                ),
                "holds .*SaveV2",
            ),
            (
                lambda graph, saver: graph.collection_def["saved_model_main_op"].node_list.value.append(
                    graph.saver_def.save_tensor_name
                ),
                "holds .*SaveV2",
            ),
            (
                lambda graph, saver: setattr(
                    graph.signature_def["separate"].outputs["sources"], "name", graph.saver_def.save_tensor_name
                ),
                "holds .*SaveV2",
            ),
        ],
    )
    def test_graphs_that_reach_files(self, change, message, exported, tmp_path):
        content = saved_model_pb2.SavedModel.FromString((exported / "saved_model/1/saved_model.pb").read_bytes())
        functions = content.meta_graphs[0].graph_def.library.function
        saver = next(f.signature.name for f in functions if any(node.op == "SaveV2" for node in f.node_def))
        change(content.meta_graphs[0], saver)
        (tmp_path / "saved_model.pb").write_bytes(content.SerializeToString())
        with pytest.raises(CheckpointError, match=message):
            load(tmp_path)

    def test_our_exports_pass(self, exported):
        check_operations(exported / "saved_model/1")


class TestManifest:
    @pytest.fixture
    def export(self, exported, tmp_path):
        return Path(shutil.copytree(exported, tmp_path / "outer" / "export"))

    @pytest.fixture
    def change(self, export):
        """Changes the entry of the ONNX file in the copied manifest."""

        def change(**fields):
            manifest = json.loads((export / "manifest.json").read_text())
            manifest["formats"]["onnx_float32"] |= fields
            (export / "manifest.json").write_text(json.dumps(manifest))

        return change

    def test_a_path_outside_of_its_folder(self, export, change, tmp_path):
        outside = Path(shutil.copy(export / "float32.onnx", tmp_path / "outside.onnx"))
        for name in ("../../outside.onnx", str(outside), "saved_model/../../../outside.onnx", "", "."):
            change(path=name)
            with pytest.raises(CheckpointError, match="not in its folder"):
                load(export)
        change(path="float32.onnx", files={"../../outside.onnx": {"sha256": "0" * 64}})
        with pytest.raises(CheckpointError, match="not in its folder"):
            load(export)

    def test_a_link_out_of_its_folder(self, export, tmp_path):
        outside = shutil.move(export / "float32.onnx", tmp_path / "outside.onnx")
        (export / "float32.onnx").symlink_to(outside)
        for path in (export, export / "float32.onnx"):
            with pytest.raises(CheckpointError, match="not in its folder"):
                load(path)

    def test_a_link_to_an_export_is_followed(self, export, tmp_path, mixtures):
        (tmp_path / "current.onnx").symlink_to(export / "float32.onnx")
        assert load(tmp_path / "current.onnx").metadata.preset is not None
        (export / "float32.onnx").write_bytes(b"changed")
        with pytest.raises(CheckpointError, match="copy it again"):
            load(tmp_path / "current.onnx")

    @pytest.mark.parametrize("place", ["export", "export/saved_model", "export/saved_model/1"])
    def test_the_manifest_is_found_from_any_working_folder(self, place, export, monkeypatch):
        monkeypatch.chdir(export.parent / place)
        name = {"export": "saved_model", "export/saved_model": "1", "export/saved_model/1": "."}[place]
        assert load(name).metadata.preset is not None
        variables = export / "saved_model/1/variables/variables.data-00000-of-00001"
        content = bytearray(variables.read_bytes())
        content[len(content) // 2] ^= 1
        variables.write_bytes(content)
        with pytest.raises(CheckpointError, match="copy it again"):
            load(name)

    def test_every_file_is_listed(self, export, change):
        (export / "saved_model/1/assets/more").mkdir(parents=True)
        (export / "saved_model/1/assets/more/words").write_text("more")
        with pytest.raises(CheckpointError, match=r"does not list .*words"):
            load(export / "saved_model")
        shutil.copy(export / "float32.onnx", export / "other.onnx")
        with pytest.raises(CheckpointError, match=r"does not list .*other\.onnx"):
            load(export / "other.onnx")
        change(files={"int8.onnx": {"sha256": "0" * 64}})
        with pytest.raises(CheckpointError):
            load(export / "float32.onnx")

    def test_settings_of_another_model(self, export):
        manifest = json.loads((export / "manifest.json").read_text())
        manifest["preset"]["model"]["num_sources"] = 3
        (export / "manifest.json").write_text(json.dumps(manifest))
        for name in ("float32.onnx", "float32.tflite", "saved_model"):
            with pytest.raises(CheckpointError, match="num_sources 2, its settings say 3"):
                load(export / name)

    @pytest.mark.parametrize(
        "text",
        [
            "", "{", "null", "[]", "7", '"formats"', "{}", '{"formats": []}', '{"formats": {}}',
            '{"formats": {"onnx_float32": null}}', '{"formats": {"onnx_float32": {"path": 7}}}',
            '{"formats": {"onnx_float32": {"path": "float32.onnx", "files": {}}}}',
            '{"formats": {"onnx_float32": {"path": "float32.onnx", "files": {"float32.onnx": {"sha256": "no"}}}}}',
            '{"formats": {"onnx_float32": {"path": "float32.onnx", "files": ["float32.onnx"]}}}',
            "[" * 100_000, "\udcff",
        ],
    )  # fmt: skip
    def test_damaged_manifests(self, text, export):
        (export / "manifest.json").write_bytes(text.encode(errors="surrogateescape"))
        for path in (export, export / "float32.onnx"):
            with pytest.raises(CheckpointError, match="damaged or not ours") as raised:
                load(path)
            assert "\n" not in str(raised.value)
            assert described(path) is None

    @pytest.mark.parametrize("value", [None, [], {}, {"model": 7}, {"model": {}, "data": {}, "train": {"epochs": "x"}}])
    def test_damaged_settings(self, value, export):
        manifest = json.loads((export / "manifest.json").read_text())
        (export / "manifest.json").write_text(json.dumps({**manifest, "preset": value}))
        with pytest.raises(CheckpointError, match="damaged or not ours"):
            load(export)


class TestRun:
    """A `model.keras` that is not what its run says, or not what its size says."""

    @pytest.fixture
    def copy(self, run, tmp_path):
        (tmp_path / "run").mkdir()
        for name in ("config.json", "model.keras"):
            shutil.copy(run.path / name, tmp_path / "run")
        return tmp_path / "run"

    @pytest.fixture
    def rewrite(self, copy):
        """Rewrites the parts of `model.keras`."""

        def rewrite(change, compression=zipfile.ZIP_STORED):
            with zipfile.ZipFile(copy / "model.keras") as archive:
                parts = {name: archive.read(name) for name in archive.namelist()}
            change(parts)
            with zipfile.ZipFile(copy / "model.keras", "w", compression) as archive:
                for name, content in parts.items():
                    archive.writestr(name, content)

        return rewrite

    @pytest.mark.parametrize(("field", "value"), [("num_sources", 3), ("latent_dim", 6), ("mask_exponent", 2.0)])
    def test_other_settings(self, field, value, copy):
        config = json.loads((copy / "config.json").read_text())
        config["model"][field] = value
        (copy / "config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match=f"is not the model of its config.json: it has {field}"):
            load(copy)

    def test_weights_that_are_no_numbers(self, run, copy):
        model = run.model()
        model.set_weights([np.full_like(w, np.nan) if w.ndim > 1 else w for w in model.get_weights()])
        model.save(copy / "model.keras")
        with pytest.raises(CheckpointError, match="holds NaN or infinite values in"):
            load(copy)

    @pytest.mark.parametrize("field", ["hidden_units", "encoder_units"])
    def test_settings_of_gigabytes(self, field, copy, rewrite):
        def change(parts):
            described = json.loads(parts["config.json"])
            described["config"]["config"][field] = [30_000, 30_000]
            parts["config.json"] = json.dumps(described).encode()

        rewrite(change)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(CheckpointError, match=r"its weights need \d,\d\d\d,\d\d\d,\d\d\d"):
            load(copy)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB

    def test_arrays_of_gigabytes(self, copy, rewrite, tmp_path):
        def change(parts):
            (tmp_path / "weights.h5").write_bytes(parts["model.weights.h5"])
            with h5py.File(tmp_path / "weights.h5", "a") as file:
                file.create_dataset("more", (30_000, 30_000), "f4", chunks=(1_000, 1_000), compression="gzip")
            parts["model.weights.h5"] = (tmp_path / "weights.h5").read_bytes()

        rewrite(change)
        with pytest.raises(CheckpointError, match="its arrays need 3,6"):
            load(copy)

    def test_an_archive_that_expands(self, copy, rewrite):
        rewrite(lambda parts: parts.update(more=bytes(10**8)), zipfile.ZIP_DEFLATED)
        with pytest.raises(CheckpointError, match="its parts need 1"):
            load(copy)

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"model": []}', "\0", "[" * 100_000])
    def test_damaged_settings(self, text, copy):
        (copy / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match="damaged or not ours"):
            load(copy)

    def test_damaged_files(self, copy, rewrite):
        content = (copy / "model.keras").read_bytes()
        for damaged in (b"", b"PK", content[:-100], content[: len(content) // 2], b"x" * len(content)):
            (copy / "model.keras").write_bytes(damaged)
            with pytest.raises(CheckpointError, match="damaged or of another version"):
                load(copy)
