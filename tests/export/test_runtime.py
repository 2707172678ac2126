"""One interface over every format; no TensorFlow for `.tflite` and `.onnx`."""

import shutil
import site
import subprocess
import venv
from pathlib import Path

import numpy as np
import pytest

from export.formats import FORMATS, get_formats
from vae_bss_tf.errors import CheckpointError, ConfigError, DataError
from vae_bss_tf.runtime import OUTPUTS, load

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
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(CheckpointError, match="damaged or not ours"):
        load(tmp_path)
