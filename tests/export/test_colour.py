"""A model of pictures in colour through the gate: every format says what the model says."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from export.pipeline import export_run
from training.run import Run
from vae_bss_tf import load
from vae_bss_tf.config import DataConfig, ModelConfig, Preset
from vae_bss_tf.datasets import decoded
from vae_bss_tf.files import write_json
from vae_bss_tf.model import MultiSourceVAE

SHAPE = (8, 12, 3)
FORMATS = {"saved_model": "saved_model/1", "tflite_float32": "float32.tflite", "onnx_float32": "float32.onnx"}


@pytest.mark.parametrize(("upsampling", "names"), [((5, 3), list(FORMATS)), ((), ["tflite_float32"])])
def test_a_model_of_colour_is_exported(
    upsampling: tuple[int, ...], names: list[str], tiny_preset: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(decoded.CACHE_VARIABLE, str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for i in range(12):
        Image.fromarray(rng.integers(256, size=SHAPE, dtype=np.uint8)).save(tmp_path / "pictures" / f"{i}.png")
    model = ModelConfig(
        input_shape=SHAPE, latent_dim=3, hidden_units=(16, 12), convolutions=(4,), upsampling=upsampling,
        mask_channels=(4, 6), mask_patch=2,
    )  # fmt: skip
    run = Run.create(tmp_path / "run", Preset(model, DataConfig("images", (1,)), tiny_preset.recipe), "vae")
    keras.utils.set_random_seed(0)
    trained = MultiSourceVAE(model)
    head = trained.mask_network.head.kernel  # zero at the start
    head.assign(rng.normal(scale=0.5, size=head.shape))
    trained.save(run.path / "model.keras")
    write_json(run.path / "metrics.json", {"mixtures": 1})
    target = tmp_path / "exported"
    export_run(run.path, target, names=names, data_dir=tmp_path / "pictures", report=lambda line: None)
    mixtures = rng.uniform(size=(3, *SHAPE)).astype(np.float32)
    tflite = load(target / "float32.tflite")
    program = Path(__file__).parents[2] / "deploy" / "edge" / "separate.py"
    for given, expected in ((mixtures, tflite.separate(mixtures)), (mixtures[0], tflite.separate(mixtures[0]))):
        np.save(tmp_path / "mixtures.npy", given)
        files = [target / "float32.tflite", tmp_path / "mixtures.npy", tmp_path / "sources.npy"]
        subprocess.run([sys.executable, program, *files], check=True)
        np.testing.assert_allclose(np.load(tmp_path / "sources.npy"), expected, atol=1e-5)
    np.save(tmp_path / "mixtures.npy", mixtures[..., 0])
    refused = subprocess.run([sys.executable, program, *files], capture_output=True, text=True, check=False)
    assert refused.returncode
    assert "the model takes (8, 12, 3)" in refused.stderr
    expected = trained.separate(mixtures)
    for name in names:
        loaded = load(target / FORMATS[name])
        assert loaded.metadata.input_shape == SHAPE
        np.testing.assert_allclose(loaded.separate(mixtures), expected, atol=1e-5)
