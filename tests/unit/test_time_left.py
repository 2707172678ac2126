"""The time left that a training tells after each epoch."""

import pytest

from training.callbacks import ProgressBar
from training.recipe import plan
from vae_bss_tf.phases import Phase, Recipe

RECIPE = Recipe(
    epochs=4,
    mixtures_per_epoch=1_000,
    phases=(Phase("separate", batch_size=100), Phase("remix", objective="remixed_elbo", batch_size=100)),
)


def told(capsys: pytest.CaptureFixture[str], rates: dict[str, float]) -> str:
    phases = plan(RECIPE)
    bar = ProgressBar(phases, 0, quiet=True, rates=rates)
    bar.begin(phases[0])
    bar.on_epoch_end(0, {"loss": 1.0})
    bar.close()
    return capsys.readouterr().out


def test_each_phase_is_counted_at_its_own_measured_speed(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = plan(RECIPE)
    seconds = (first.epochs - 1) * 1_000 / 500 + second.epochs * 1_000 / 10
    assert f"{-(-seconds // 60):.0f} min left" in told(capsys, {"separate": 500.0, "remix": 10.0})


def test_nothing_is_told_where_no_speed_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert "left" not in told(capsys, {})
