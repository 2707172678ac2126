"""Each shipped model: its files are the ones its manifest lists, and they say what the trained model said."""

import json
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from export.formats import FORMATS
from training.run import Run
from vae_bss_tf.audio import spectrogram
from vae_bss_tf.audio.context import ContextNetwork
from vae_bss_tf.files import sha256
from vae_bss_tf.runtime import OUTPUTS, load

REPOSITORY = Path(__file__).resolve().parents[2]
# Live separators have files of another kind: tests/live/test_shipped.py.
MANIFESTS = [
    path
    for path in sorted((REPOSITORY / "saved_models").glob("*/manifest.json"))
    if json.loads(path.read_text()).get("kind") != "live"
]
SHIPPED = [(path.parent, name) for path in MANIFESTS for name in json.loads(path.read_text())["formats"]]
WAVEFORMS = [(folder, name) for folder, name in SHIPPED if FORMATS[name].waveform]
SPECTROGRAMS_AND_PICTURES = [one for one in SHIPPED if one not in WAVEFORMS]

pytestmark = pytest.mark.skipif(not MANIFESTS, reason="no model is shipped in saved_models")


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.parent.name)
def test_the_files_are_those_of_the_manifest(path):
    manifest = json.loads(path.read_text())
    listed = {name: file["sha256"] for name, file in manifest.get("weights", {}).items()}
    for entry in manifest["formats"].values():
        listed |= {name: file["sha256"] for name, file in entry["files"].items()}
    listed |= {name: file["sha256"] for name, file in manifest.get("context", {}).get("files", {}).items()}
    found = {p.relative_to(path.parent).as_posix(): sha256(p) for p in path.parent.rglob("*") if p.is_file()}
    described = {"manifest.json", "README.md", "training.png"}
    of_the_run = {"config.json", "metrics.json", "history.csv"} if "weights" in manifest else set()
    assert {name: digest for name, digest in found.items() if name not in described | of_the_run} == listed
    assert of_the_run <= set(found)
    assert described <= set(found)


@pytest.mark.parametrize(("folder", "name"), WAVEFORMS, ids=lambda value: getattr(value, "name", value))
def test_files_of_waveforms_say_what_the_model_says(folder, name):
    run = Run.load(folder)
    audio = run.preset.audio
    mixtures = np.random.default_rng(0).uniform(-1, 1, (3, audio.num_samples)).astype(np.float32)
    expected = spectrogram.separate_waveforms(mixtures, run.model().separate, audio)
    separate = Interpreter(model_path=str(folder / FORMATS[name].path)).get_signature_runner("separate")
    found = np.concatenate([separate(mixture=mixture[np.newaxis])["sources"] for mixture in mixtures])
    np.testing.assert_allclose(found, expected, atol=FORMATS[name].max_error)
    np.testing.assert_allclose(found.sum(axis=1), mixtures, atol=1e-5)


@pytest.mark.parametrize(("folder", "name"), SPECTROGRAMS_AND_PICTURES,
                         ids=lambda value: getattr(value, "name", value))  # fmt: skip
def test_golden_outputs(folder, name):
    golden = np.load(Path(__file__).with_name(f"{folder.name}.npz"))
    found = load(folder / FORMATS[name].path).outputs(golden["mixtures"])
    np.testing.assert_allclose(found["sources"].sum(axis=1), golden["mixtures"], atol=1e-5)
    for output in OUTPUTS:
        if FORMATS[name].max_error is not None:
            np.testing.assert_allclose(found[output], golden[output], atol=FORMATS[name].max_error)
        else:
            error = np.abs(found[output] - golden[output]).mean()
            assert error < 0.03 * max(1, np.abs(golden[output]).max())


@pytest.mark.parametrize("folder", [path.parent for path in MANIFESTS if (path.parent / "context").exists()],
                         ids=lambda folder: folder.name)  # fmt: skip
def test_the_context_network_corrects_as_it_did(folder):
    golden = np.load(Path(__file__).with_name(f"{folder.name}-context.npz"))
    network = ContextNetwork.load(folder, Run.load(folder).preset.audio)
    found = np.concatenate(list(network.corrected([golden["sources"]])))
    np.testing.assert_allclose(found, golden["corrected"], atol=1e-4)
    np.testing.assert_allclose(found.sum(axis=1), golden["sources"].sum(axis=1), atol=1e-5)


def test_all_shipped_models_are_under_30_megabytes_and_each_one_s_weights_under_8():
    sizes = {p: p.stat().st_size for p in (REPOSITORY / "saved_models").rglob("*") if p.is_file()}
    assert sum(size for p, size in sizes.items() if p.name != "weights.npz") < 30e6
    assert all(size < 8e6 for p, size in sizes.items() if p.name == "weights.npz")


@pytest.mark.parametrize("folder", [path.parent for path in MANIFESTS if (path.parent / "weights.npz").exists()],
                         ids=lambda folder: folder.name)  # fmt: skip
def test_the_weights_are_those_of_the_files(folder):
    """They are in float16, and masks where nothing sounds are sensitive: means are compared."""
    golden = np.load(Path(__file__).with_name(f"{folder.name}.npz"))
    run = Run.load(folder)
    model = run.model()
    assert np.abs(model.separate(golden["mixtures"]) - golden["sources"]).mean() < 1e-3
    assert model.prior_weight == run.preset.recipe.final_kl_weight
