"""Trainings of baselines in several phases, and that they resume in each."""

from collections.abc import Callable
from pathlib import Path

import pytest

from training import fit
from training.backup import Backup
from training.history import read_history
from vae_bss_tf.config import Preset


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
    deaths = [1, 3]
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
