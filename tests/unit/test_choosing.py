"""The score that needs no truth chooses the model that a phase keeps, and when it ends."""

from pathlib import Path

import keras
import numpy as np
import pytest

from training import fit, results, truth_free
from training.backup import Backup
from training.callbacks import RemixScore
from training.history import read_history
from vae_bss_tf.config import Preset
from vae_bss_tf.errors import ConfigError
from vae_bss_tf.phases import Recipe
from vae_bss_tf.presets import get_preset


def test_callbacks_after_it_see_the_score() -> None:
    seen = []
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.separator = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.separator.separate = lambda mixtures: mixtures
    model.compile(loss="mse")
    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(logs["val_remix_si_sdri"]))
    score = RemixScore(lambda separate: float(separate(np.float32(7))))
    model.fit(np.zeros((4, 1)), np.zeros((4, 1)), epochs=2, verbose=0, callbacks=[score, note])
    assert seen == [7.0, 7.0]


@pytest.fixture(autouse=True)
def few_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "NUM_SCORED", 100)


@pytest.fixture
def preset(tiny_preset: Preset) -> Preset:
    """An epoch of the ELBO and five of remixing."""
    first = tiny_preset.recipe.phases[0]
    remix = first.replace(name="remix", objective="remixed_elbo", share=5, keep="best")
    return tiny_preset.replace(recipe=tiny_preset.recipe.replace(epochs=6, choose_by="remixing", phases=(first, remix)))


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The scores of the epochs to come."""
    to_come: list[float] = []
    monkeypatch.setattr(truth_free, "remix_si_sdri", lambda *arguments: to_come.pop(0))
    return to_come


def test_the_model_of_the_best_score_is_kept_though_its_elbo_is_lower(
    preset: Preset, scores: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = []
    end_epoch = Backup.end_epoch

    def ended(self, done, learner):
        weights.append(learner.separator.get_weights())
        end_epoch(self, done, learner)

    monkeypatch.setattr(Backup, "end_epoch", ended)
    scores += [9.0, 1.0, 3.0, 2.0, 2.5, -1.0]
    run = fit.train(preset, output=tmp_path / "run")
    rows = read_history(run.path / "history.csv")
    assert [row["val_remix_si_sdri"] for row in rows] == [9.0, 1.0, 3.0, 2.0, 2.5, -1.0]
    assert np.argmax([row["val_elbo"] for row in rows]) != 2
    for kept, best in zip(run.model().get_weights(), weights[2], strict=True):
        np.testing.assert_array_equal(kept, best)


def test_a_phase_ends_without_a_better_score(preset: Preset, scores: list[float], tmp_path: Path) -> None:
    scores += [9.0, 1.0, 0.5, 0.7]
    preset = preset.replace(recipe=preset.recipe.replace(early_stopping=2))
    assert fit.train(preset, output=tmp_path / "run").metrics["epochs"] == 4


def test_before_any_remixing_the_elbo_chooses(preset: Preset, scores: list[float], tmp_path: Path) -> None:
    """An untrained model, which shares everything out evenly, has a higher score than one that begins to separate."""
    scores += [1.0, 0.0, -1.0, -2.0, -3.0, -4.0]
    recipe = preset.recipe.replace(
        phases=tuple(phase.replace(objective="elbo") for phase in preset.recipe.phases), early_stopping=2
    )
    assert fit.train(preset.replace(recipe=recipe), output=tmp_path / "run").metrics["epochs"] == 6


class Died(BaseException):
    """Stands for a kill; nothing catches it."""


def test_a_resumed_training_knows_the_scores_before(
    preset: Preset, scores: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_epoch = Backup.end_epoch

    def dying(self, done, learner):
        end_epoch(self, done, learner)
        if done.epochs == 4:
            raise Died

    scores += [9.0, 1.0, 3.0, 2.0, 2.5, -1.0]
    with monkeypatch.context() as patch:
        patch.setattr(Backup, "end_epoch", dying)
        with pytest.raises(Died):
            fit.train(preset, output=tmp_path / "run")
    run = fit.train(preset, output=tmp_path / "run", resume="latest")
    scores += [9.0, 1.0, 3.0, 2.0, 2.5, -1.0]
    whole = fit.train(preset, output=tmp_path / "whole")
    for one, other in zip(run.model().get_weights(), whole.model().get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_recipes_for_mixtures_without_a_truth_choose_by_it() -> None:
    for name in ("images", "mixtures"):
        recipe = get_preset(name).recipe
        assert recipe.choose_by == "remixing"
        assert {phase.keep for phase in recipe.phases if phase.objective == "remixed_elbo"} == {"best"}
        assert {phase.keep for phase in recipe.phases if phase.objective != "remixed_elbo"} == {"last"}
    assert get_preset("mnist").recipe.choose_by == "objective"
    with pytest.raises(ConfigError, match="2 or more"):
        Recipe(choose_by="remixing", validation_mixtures=1)
