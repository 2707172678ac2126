"""The plan of a training: epochs shared out among phases and rounds, and the budget in minutes."""

import itertools

import pytest

from training.recipe import Speed, plan, steps_per_epoch, within_minutes
from vae_bss_tf.errors import ConfigError
from vae_bss_tf.phases import Phase, Recipe
from vae_bss_tf.presets import PRESETS, get_preset

THREE = Recipe(
    epochs=20,
    mixtures_per_epoch=1_000,
    phases=(
        Phase("separate", share=0.15, batch_size=64, steps_per_execution=8),
        Phase("remix", objective="remixed_elbo", share=0.25, batch_size=32, steps_per_execution=4),
        Phase("masks", objective="masked_remix", trains=("mask_network",), share=0.6, rounds=3, steps_per_execution=1),
    ),
)


def test_epochs_are_shared_out_by_the_shares_and_the_rounds() -> None:
    assert [(call.title, call.epochs) for call in plan(THREE)] == [
        ("separate", 3),
        ("remix", 5),
        ("masks 1/3", 4),
        ("masks 2/3", 4),
        ("masks 3/3", 4),
    ]


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("epochs", [1, 2, 3, 4, 7, 31, 90])
def test_a_plan_adds_up(name: str, epochs: int) -> None:
    recipe = get_preset(name).recipe.replace(epochs=epochs)
    calls = plan(recipe)
    assert sum(call.epochs for call in calls) == epochs
    assert all(call.epochs >= 1 for call in calls)
    assert [call.index for call in calls] == list(range(len(calls)))
    assert [call.phase.name for call in calls] == sorted(
        (call.phase.name for call in calls), key=[phase.name for phase in recipe.phases].index
    )
    for before, call in itertools.pairwise(calls):
        assert call.first_epoch == before.first_epoch + before.epochs
        assert call.first_step == before.first_step + before.num_steps
        assert call.first_mixture == before.first_mixture + before.num_mixtures
        assert call.round == (before.round + 1 if call.phase == before.phase else 1)
    assert (calls[0].first_epoch, calls[0].first_step, calls[0].first_mixture) == (0, 0, 0)
    for phase in recipe.phases:
        rounds = [call for call in calls if call.phase == phase]
        assert len(rounds) <= phase.rounds
        assert max((call.epochs for call in rounds), default=0) - min((call.epochs for call in rounds), default=0) <= 1


def test_fewer_epochs_than_phases_train_the_first_ones() -> None:
    assert [call.title for call in plan(THREE.replace(epochs=2))] == ["separate", "remix"]
    assert [call.title for call in plan(THREE.replace(epochs=3))] == ["separate", "remix", "masks"]
    assert [call.title for call in plan(THREE.replace(epochs=4))] == ["separate", "remix", "masks 1/2", "masks 2/2"]


def test_an_epoch_is_a_whole_number_of_compiled_calls() -> None:
    phase = Phase(batch_size=32, steps_per_execution=32)
    assert steps_per_epoch(30_000, phase) == 960
    assert steps_per_epoch(100, phase) == 4


SPEEDS = {"separate": Speed(4_000.0, 10.0, 1.0), "remix": Speed(2_000.0, 20.0, 2.0), "masks": Speed(500.0, 5.0, 2.0)}


def seconds_of(recipe: Recipe) -> float:
    """What a plan takes at these speeds."""
    return sum(
        SPEEDS[c.phase.name].start_up
        + c.num_mixtures / SPEEDS[c.phase.name].mixtures_per_second
        + c.epochs * SPEEDS[c.phase.name].between_epochs
        for c in plan(recipe)
    )


@pytest.mark.parametrize("minutes", [5.0, 15.0, 60.0])
@pytest.mark.parametrize("spent", [0.0, 60.0])
def test_a_budget_in_minutes_is_used_and_kept_to(minutes: float, spent: float) -> None:
    found = within_minutes(THREE, minutes, SPEEDS, spent)
    total = spent + seconds_of(found)
    assert 0.8 * 60 * minutes - 30 < total < 60 * minutes
    assert [phase.replace(rounds=1) for phase in found.phases] == [phase.replace(rounds=1) for phase in THREE.phases]
    rounds = [call for call in plan(found) if call.phase.name == "masks"]
    assert len(rounds) == 1 or min(call.num_mixtures for call in rounds) >= 16_000
    assert len(rounds) == 3 or sum(call.num_mixtures for call in rounds) < 16_000 * (len(rounds) + 2)
    assert len({call.phase.name for call in plan(found)}) == 3


def test_mixtures_in_a_time_are_those_of_the_closed_form() -> None:
    """With shares s, speeds v, and b seconds after each epoch of c mixtures, n take n sum(s / v + s b / c) seconds."""
    available = 600 * 0.94 - 25 - 30 - (10 + 20 + 3 * 5)
    seconds_a_mixture = 0.15 / 4_000 + 0.25 / 2_000 + 0.6 / 500
    between = 0.15 * 1 + 0.25 * 2 + 0.6 * 2
    half = {name: Speed(rate / 2, start_up, between) for name, (rate, start_up, between) in SPEEDS.items()}
    found, slower = (within_minutes(THREE, 10, speeds, spent=30.0) for speeds in (SPEEDS, half))
    assert found.mixtures_per_epoch == slower.mixtures_per_epoch == 1_024  # two calls of the longest
    assert found.epochs == int(available / (1_024 * seconds_a_mixture + between))
    assert slower.epochs == int(available / (1_024 * 2 * seconds_a_mixture + between))
    few = within_minutes(THREE.replace(mixtures_per_epoch=30_000), 10, SPEEDS, spent=30.0)
    assert few.epochs == int(available / (few.mixtures_per_epoch * seconds_a_mixture + between)) >= 24
    assert int(available / ((few.mixtures_per_epoch + 512) * seconds_a_mixture + between)) < 24


@pytest.mark.parametrize("calls", [(8, 4), (32, 32), (5, 3), (7, 32)])
@pytest.mark.parametrize("minutes", [3.0, 7.0, 20.0, 61.0])
def test_what_is_rounded_up_to_whole_calls_is_counted(calls: tuple[int, int], minutes: float) -> None:
    phases = [p.replace(steps_per_execution=n) for p, n in zip(THREE.phases, (*calls, 1), strict=True)]
    recipe = THREE.replace(mixtures_per_epoch=30_000, phases=tuple(phases))
    found = within_minutes(recipe, minutes, SPEEDS, spent=10.0)
    assert 10 + seconds_of(found) < 60 * minutes


def test_minutes_that_do_not_suffice_are_refused_with_what_would() -> None:
    with pytest.raises(ConfigError, match=r"--minutes 1 is too short.*at least (\d+\.\d)") as raised:
        within_minutes(THREE, 1, SPEEDS, spent=30.0)
    enough = float(str(raised.value).rstrip(".").split()[-1])
    assert within_minutes(THREE, enough, SPEEDS, spent=30.0).epochs >= 3


def test_the_minutes_that_are_named_suffice_however_slow_the_machine_is() -> None:
    for slower in (3, 10, 40):
        speeds = {
            name: Speed(rate / slower, slower * start_up, slower * between)
            for name, (rate, start_up, between) in SPEEDS.items()
        }
        with pytest.raises(ConfigError) as raised:
            within_minutes(THREE, 1, speeds, spent=30.0)
        enough = float(str(raised.value).rstrip(".").split()[-1])
        assert within_minutes(THREE, enough, speeds, spent=30.0).epochs >= 3
