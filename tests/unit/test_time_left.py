"""The time left that a training tells after each epoch."""

import pytest

from training import callbacks
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


def test_what_follows_each_epoch_counts_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten steps of a second, and half an hour of validation after the first epoch."""
    clock = iter([0.0, 10.0, 1_810.0, 1_820.0])
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: next(clock))
    phases = plan(RECIPE)
    bar = ProgressBar(phases, 0, quiet=True, rates={"separate": 100.0, "remix": 100.0})
    bar.begin(phases[0])
    for epoch in range(2):
        bar.on_epoch_begin(epoch)
        bar.on_train_batch_end(9)
        bar.on_epoch_end(epoch, {"loss": 1.0})
    bar.close()
    assert "61 min left" in capsys.readouterr().out.splitlines()[1]  # two epochs of 10 s, and of 30 minutes after each


def test_nothing_is_told_where_no_speed_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert "left" not in told(capsys, {})
