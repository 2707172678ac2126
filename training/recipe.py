"""The plan of a training: which phase is trained for how many epochs, from a budget in epochs or in minutes."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vae_bss_tf.errors import ConfigError
from vae_bss_tf.phases import Phase, Recipe

_LEAST_EPOCHS = 24  # of a training planned in minutes, so that every phase has some
_RESERVE = 0.06  # share of the minutes for backups, pictures and what a measured speed leaves out
_LEAST_OF_A_ROUND = 16_000  # mixtures, of which shorter rounds gain less than fewer longer ones
_FIXED_SECONDS = 25.0  # for reading the data, scoring the model and drawing pictures


class Speed(NamedTuple):
    """How fast a phase is trained.

    Attributes:
        mixtures_per_second: After the first call.
        start_up: Seconds of the first call, which compiles.
        between_epochs: Seconds of what follows each epoch.
    """

    mixtures_per_second: float
    start_up: float
    between_epochs: float


@dataclasses.dataclass(frozen=True)
class PlannedPhase:
    """One call of Keras' `fit`: a phase, or a round of one.

    Attributes:
        phase: Its settings.
        index: Its place in the plan, from 0.
        round: Its round, from 1.
        rounds: Rounds of the phase in this plan.
        epochs: How many epochs it is trained.
        steps_per_epoch: Steps an epoch.
        first_epoch: Epochs of the training before it.
        first_step: Steps of the training before it.
        first_mixture: Mixtures of the training before it.
    """

    phase: Phase
    index: int
    round: int
    rounds: int
    epochs: int
    steps_per_epoch: int
    first_epoch: int
    first_step: int
    first_mixture: int

    @property
    def title(self) -> str:
        """Its name, such as "masks 2/4"."""
        return self.phase.name if self.rounds == 1 else f"{self.phase.name} {self.round}/{self.rounds}"

    @property
    def mixtures_per_epoch(self) -> int:
        """Mixtures an epoch."""
        return self.steps_per_epoch * self.phase.batch_size

    @property
    def num_steps(self) -> int:
        """Steps of the whole call."""
        return self.epochs * self.steps_per_epoch

    @property
    def num_mixtures(self) -> int:
        """Mixtures of the whole call."""
        return self.epochs * self.mixtures_per_epoch


def plan(recipe: Recipe) -> list[PlannedPhase]:
    """Shares a recipe's epochs out among its phases, and each phase's among its rounds.

    Every phase has at least one epoch, and where there are fewer epochs than phases, the first ones have one each. No
    round is shorter than an epoch, so a short training has fewer rounds.

    Args:
        recipe: The recipe.

    Returns:
        The calls of `fit`, in order.
    """
    planned: list[PlannedPhase] = []
    epochs_before, steps_before, mixtures_before = 0, 0, 0
    for phase, epochs in zip(recipe.phases, _shared_out(recipe), strict=True):
        rounds = min(phase.rounds, epochs)
        for number in range(rounds):
            call = PlannedPhase(
                phase,
                len(planned),
                number + 1,
                rounds,
                epochs // rounds + (number < epochs % rounds),
                steps_per_epoch(recipe.mixtures_per_epoch, phase),
                epochs_before,
                steps_before,
                mixtures_before,
            )
            planned.append(call)
            epochs_before += call.epochs
            steps_before += call.num_steps
            mixtures_before += call.num_mixtures
    return planned


def _shared_out(recipe: Recipe) -> list[int]:
    """Epochs of each phase, by the largest remainders."""
    phases = recipe.phases
    if recipe.epochs <= len(phases):
        return [int(i < recipe.epochs) for i in range(len(phases))]
    wanted = _amounts(phases, recipe.epochs, unit=recipe.mixtures_per_epoch)
    spare = recipe.epochs - len(phases)  # beyond the one that each has
    wanted = [max(w - 1, 0) for w in wanted]
    wanted = [spare * w / sum(wanted) for w in wanted]
    epochs = [1 + int(w) for w in wanted]
    by_remainder = sorted(range(len(phases)), key=lambda i: (int(wanted[i]) - wanted[i], i))
    for i in by_remainder[: recipe.epochs - sum(epochs)]:
        epochs[i] += 1
    return epochs


def _amounts(
    phases: Sequence[Phase], budget: float, *, unit: float = 1.0, costs: Sequence[float] | None = None
) -> list[float]:
    """Shares a budget out among phases by their shares, with none above its most.

    Args:
        phases: The phases.
        budget: What the amounts cost together.
        unit: Mixtures in an amount of 1.
        costs: What an amount of 1 costs, of each phase; None is 1 each.

    Returns:
        The amount of each phase. Where all phases have a most that together cost less than the budget, they are
        exceeded alike.
    """
    costs = costs or [1.0] * len(phases)
    limits = [phase.most / unit if phase.most else math.inf for phase in phases]
    of_limits = sum(limit * cost for limit, cost in zip(limits, costs, strict=True))
    if of_limits <= budget:
        return [limit * budget / of_limits for limit in limits]
    full: set[int] = set()
    while True:
        free = [i for i in range(len(phases)) if i not in full]
        left = budget - sum(limits[i] * costs[i] for i in full)
        scale = left / sum(phases[i].share * costs[i] for i in free)
        over = {i for i in free if phases[i].share * scale > limits[i]}
        if not over:
            return [limits[i] if i in full else phase.share * scale for i, phase in enumerate(phases)]
        full |= over


def steps_per_epoch(mixtures: int, phase: Phase) -> int:
    """Steps of a phase in an epoch of so many mixtures: these over the batch size, in whole compiled calls."""
    steps = math.ceil(mixtures / phase.batch_size)
    calls = math.ceil(steps / phase.steps_per_execution)
    return calls * min(phase.steps_per_execution, steps)


def within_minutes(recipe: Recipe, minutes: float, speeds: Mapping[str, Speed], spent: float) -> Recipe:
    """Gives a recipe the budget that ends in time, at speeds that were measured.

    Args:
        recipe: The recipe; the phases' shares and limits are kept, and as many of their rounds as are long enough.
        minutes: How long the whole command may take; > 0.
        speeds: The speed of each phase, by name.
        spent: Seconds that the command has taken so far.

    Returns:
        The recipe with another number of epochs, of mixtures an epoch and of rounds.

    Raises:
        ConfigError: The minutes do not suffice to compile the phases' steps.
    """
    available = 60 * minutes * (1 - _RESERVE) - _FIXED_SECONDS - spent
    for rounds in range(max(phase.rounds for phase in recipe.phases), 0, -1):
        phases = tuple(phase.replace(rounds=min(phase.rounds, rounds)) for phase in recipe.phases)
        length, epochs = _epochs_within(recipe.replace(phases=phases), available, speeds)
        if epochs >= len(phases):
            found = recipe.replace(epochs=epochs, mixtures_per_epoch=length, phases=phases)
            if all(call.rounds == 1 or call.num_mixtures >= _LEAST_OF_A_ROUND for call in plan(found)):
                return found
    shares, costs = [phase.share for phase in phases], _costs(phases, length, speeds)
    an_epoch = length * sum(share * cost for share, cost in zip(shares, costs, strict=True)) / sum(shares)
    seconds = spent + _FIXED_SECONDS + _compiling(phases, speeds) + len(phases) * an_epoch
    raise ConfigError(
        f"--minutes {minutes:g} is too short for this recipe on this machine; give at least "
        f"{seconds / (1 - _RESERVE) / 60 + 0.5:.1f}."
    )


def _epochs_within(recipe: Recipe, seconds: float, speeds: Mapping[str, Speed]) -> tuple[int, int]:
    """The length of an epoch, whole compiled calls of mixtures, and how many epochs fit into a time."""
    seconds = max(0.0, seconds - _compiling(recipe.phases, speeds))

    def epochs_of(length: int) -> int:
        amounts = _amounts(recipe.phases, seconds, costs=_costs(recipe.phases, length, speeds))
        return int(sum(amounts) / length)

    call = max(phase.batch_size * phase.steps_per_execution for phase in recipe.phases)
    length = max(recipe.mixtures_per_epoch // call, 2) * call
    while length > 2 * call and epochs_of(length) < _LEAST_EPOCHS:
        length -= call
    return length, epochs_of(length)


def _costs(phases: Sequence[Phase], length: int, speeds: Mapping[str, Speed]) -> list[float]:
    """Seconds that a mixture takes in each phase, in epochs of a length; steps are rounded up to whole calls."""
    of_phases = [(speeds[phase.name], steps_per_epoch(length, phase) * phase.batch_size) for phase in phases]
    return [(mixtures / speed.mixtures_per_second + speed.between_epochs) / length for speed, mixtures in of_phases]


def _compiling(phases: Sequence[Phase], speeds: Mapping[str, Speed]) -> float:
    return sum(speeds[phase.name].start_up * phase.rounds for phase in phases)
