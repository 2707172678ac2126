"""What the tests share: tiny settings and the place of the real data."""

import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

from vae_bss_tf.config import BEGUN_FROM, PRESETS, DataConfig, ModelConfig, Preset, TrainConfig

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of several processes (`-n`), one makes what the tests of a file, or those of the export, share."""
    for item in items:
        group = "export" if item.path.parent.name == "export" else item.path.stem
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def tiny_config() -> ModelConfig:
    """A model that builds and runs in no time."""
    return ModelConfig(input_shape=(8, 8), num_sources=3, latent_dim=4, hidden_units=(16, 12))


@pytest.fixture(scope="session")
def tiny_preset() -> Preset:
    """A training of a second, not compiled by XLA, which would take longer: two sources of scikit-learn's digits."""
    return Preset(
        ModelConfig(input_shape=(8, 8), num_sources=2, latent_dim=4, hidden_units=(16, 12)),
        DataConfig("digits"),
        TrainConfig(
            epochs=3, mixtures_per_epoch=256, batch_size=32, steps_per_execution=4, validation_mixtures=64,
            kl_warmup_epochs=1.0, jit_compile=False,
        ),
    )  # fmt: skip


@pytest.fixture(scope="session")
def going_on(tiny_preset: Preset) -> TrainConfig:
    """A training of an epoch that goes on from a finished run, by masked remixing."""
    return tiny_preset.train.replace(epochs=1, remix_weight=1.0, remix_start=0.0, remix_mask_start=0.0)


@pytest.fixture
def tiny_stages(tiny_preset: Preset, going_on: TrainConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Presets of which each goes on from a run of the one before; the folder, not there yet, where they go."""
    monkeypatch.chdir(tmp_path)
    corrected = tiny_preset.model.replace(corrector_units=(6,))
    masked = corrected.replace(mask_channels=(3,))
    monkeypatch.setitem(PRESETS, "tiny", tiny_preset)
    monkeypatch.setitem(PRESETS, "tiny-corrected", Preset(corrected, tiny_preset.data, going_on))
    monkeypatch.setitem(PRESETS, "tiny-masked", Preset(masked, tiny_preset.data, going_on))
    monkeypatch.setitem(BEGUN_FROM, "tiny-corrected", "tiny")
    monkeypatch.setitem(BEGUN_FROM, "tiny-masked", "tiny-corrected")
    return tmp_path / "runs"


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder with the real data sets, from VAE_BSS_DATA or beside the repository."""
    folder = Path(os.environ.get("VAE_BSS_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the real data is not here; name its folder in VAE_BSS_DATA")
    return folder


@pytest.fixture(scope="session")
def run_module():
    """Runs `python -m MODULE ARGUMENTS...` as a user would and returns the finished process."""

    def run(module: str, *arguments: object, cwd: Path | None = None, timeout: float = 300):
        return subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=cwd or REPOSITORY, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    return run
