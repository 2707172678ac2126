"""What the tests of the commands share."""

import json
from collections.abc import Iterator

import numpy as np
import pytest

from training import figures, results
from training.run import Run
from vae_bss_tf.config import Preset


@pytest.fixture(scope="module", autouse=True)
def small_results() -> Iterator[None]:
    """Trainings in this process score 100 mixtures and draw two spectrograms; those in others do all of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "NUM_SCORED", 100)
        patch.setattr(figures, "SPECTROGRAMS", 2)
        yield


@pytest.fixture(scope="session")
def command(tiny_recipe: Preset) -> list[str]:
    """Options of `training.fit` for a recipe of every kind of phase; eight epochs, two of each phase and round.

    The third source, which no mixture needs, is added when the mask network begins to learn.
    """
    recipe = {"epochs": 8, "mixtures_per_epoch": 512, "validation_mixtures": 64, "early_stopping": 7}
    separate, remix, masks = tiny_recipe.recipe.phases
    phases = separate.replace(sources="mixed"), remix.replace(sources="mixed"), masks
    recipe["phases"] = [phase.to_dict() for phase in phases]
    model = {name: tiny_recipe.model.to_dict()[name] for name in ("hidden_units", "latent_dim", "mask_channels")}
    model["num_sources"] = 3
    changes = [("recipe", recipe), ("model", model)]
    return [
        "--quiet",
        *(
            word
            for part, values in changes
            for name, value in values.items()
            for word in ("--set", f"{part}.{name}={json.dumps(value)}")
        ),
    ]


@pytest.fixture(scope="session")
def check_equal():
    """Checks that a run ended as another did: with the same weights, history and scores, and with nothing left over."""

    def check(run: Run, whole: Run) -> None:
        assert (run.path / "history.csv").read_text() == (whole.path / "history.csv").read_text()
        for one, other in zip(run.model().get_weights(), whole.model().get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
        assert run.metrics["test"] == whole.metrics["test"]
        assert not list(run.path.rglob(".partial*"))

    return check
