"""What the tests share: tiny settings and the place of the real data."""

import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

from vae_bss_tf.config import DataConfig, ModelConfig, Preset, TrainConfig

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
