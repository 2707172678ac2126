"""Trainings of baselines in several phases, and that they resume in each."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from training import fit, results
from training.backup import Backup
from training.history import read_history
from vae_bss_tf.config import AudioConfig, DataConfig, ModelConfig, Preset
from vae_bss_tf.phases import Phase, Recipe


class Died(BaseException):
    """Stands for a kill; nothing catches it."""


@pytest.mark.parametrize("system", ["remixit", "self-remixing"])
def test_a_taught_baseline_goes_through_its_phases_and_resumes_in_them(
    system: str, tiny_preset: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check_equal: Callable
) -> None:
    preset = tiny_preset.replace(recipe=tiny_preset.recipe.replace(epochs=4))
    whole = fit.train(preset, output=tmp_path / "whole", system=system)
    names = ["train", system.replace("-", "_")]
    assert [row["phase"] for row in read_history(whole.path / "history.csv")] == [n for n in names for _ in range(2)]
    assert whole.metrics["mixtures"] == 4 * 256
    deaths = [1, 3] if system == "remixit" else [3]  # their first phase is the same
    end_epoch = Backup.end_epoch

    def dying(self, done, learner):
        end_epoch(self, done, learner)
        if done.epochs in deaths:
            deaths.remove(done.epochs)
            raise Died

    monkeypatch.setattr(Backup, "end_epoch", dying)
    resume = None
    while deaths:
        with pytest.raises(Died):
            fit.train(preset, output=tmp_path / "run", system=system, resume=resume)
        resume = "latest"
    check_equal(fit.train(preset, output=tmp_path / "run", system=system, resume=resume), whole)


def test_sound_is_remixed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "NUM_SCORED", 20)
    audio = AudioConfig(sample_rate=4_000, n_fft=64, hop_length=16, num_frames=32, num_bins=32, frame_pooling=4)
    model = ModelConfig(audio.feature_shape, latent_dim=3, network="spectrogram", hidden_units=(16, 16, 12))
    phase = Phase(batch_size=16, steps_per_execution=2, jit_compile=False)
    recipe = Recipe(epochs=2, mixtures_per_epoch=32, validation_mixtures=16, phases=(phase,))
    run = fit.train(Preset(model, DataConfig("tones"), recipe, audio), output=tmp_path / "run", system="self-remixing")
    sources = run.model().separate(np.full((1, 8, 32), 0.5, np.float32))
    np.testing.assert_allclose(sources.sum(axis=1), 0.5, atol=1e-5)
    assert np.isfinite(run.metrics["test"]["self-remixing"]["si_sdr"])
