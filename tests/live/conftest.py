"""A tiny live separator, its run and its export."""

import numpy as np
import pytest

from export.live import gate
from export.live.__main__ import main as export
from training.live import trainer
from vae_bss_tf.live.config import LiveConfig
from vae_bss_tf.live.model import LiveVAE
from vae_bss_tf.live.saved import save_weights

TINY = LiveConfig(band_channels=(2, 3, 3, 2), channels=8, decoder_units=6, mask_channels=2, latent_dim=2, kernel_size=3)


def _tiny_model(**changes):
    model = LiveVAE(TINY.replace(**changes))
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 0.5, variable.shape))
    return model


@pytest.fixture(scope="session")
def tiny_model():
    """Makes an untrained model whose masks are far from equal shares; takes settings to change."""
    return _tiny_model


@pytest.fixture(scope="session")
def tiny_config():
    """Its settings."""
    return TINY


@pytest.fixture(scope="session")
def live_run(tmp_path_factory):
    """A finished run."""
    path = tmp_path_factory.mktemp("live") / "run"
    trainer.create(path, TINY, trainer.LiveTraining(), [{"data_dir": "takes", "teacher": "models/duets"}], False)
    save_weights(_tiny_model(), path / "weights.npz")
    (path / "metrics.json").write_text("{}")
    (path / "history.csv").write_text("epoch\n")
    return path


@pytest.fixture(scope="session")
def live_export(live_run):
    """Its export in all formats."""
    target = live_run.parent / "exported"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate, "SECONDS", 24.0)  # silence, after which the gate looks, ends at 22
        assert export(["--run", str(live_run), "--to", str(target)]) == 0
    return target


@pytest.fixture
def sound():
    """Two seconds of two notes, float32 at 11,025 Hz."""
    t = np.arange(22_050) / 11_025
    notes = [np.sin(2 * np.pi * f * n * t) / n for f, n in ((220, 1), (220, 2), (330, 1), (330, 3))]
    return (0.2 * np.sum(notes, axis=0) * np.minimum(1, 5 * t)).astype(np.float32)
