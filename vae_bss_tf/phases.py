"""Settings of a training: its phases, and the recipe that lists them."""

import dataclasses
from typing import Any

from vae_bss_tf.checks import check, check_choice
from vae_bss_tf.settings import Settings

MODEL_OBJECTIVES = ("elbo", "remixed_elbo", "masked_remix")
OBJECTIVES = (*MODEL_OBJECTIVES, "own", "remixit", "self_remixing")
SOURCES = ("all", "mixed", "spare")
PARTS = ("encoder", "decoder", "mask_network")
KL_SCHEDULES = ("constant", "linear", "decay")
LEARNING_RATE_SCHEDULES = ("constant", "cosine", "exponential")
REMIX_ORIGINS = ("neighbours", "sparsest")
CHOOSERS = ("objective", "remixing")
PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")


@dataclasses.dataclass(frozen=True)
class Phase(Settings):
    """One phase of a training: an objective, the parts that it trains, and how. It is one call of Keras' `fit`.

    Attributes:
        name: What it is called in the progress, the history and on the command line.
        objective: What a step minimises: "elbo" (`objectives.Elbo`), "remixed_elbo" (`objectives.RemixedElbo`),
            "masked_remix" (`objectives.MaskedRemix`); of baselines "own", what their model brings itself, "remixit" or
            "self_remixing" (`baselines.remixing`).
        trains: The parts of the model whose weights change: of "encoder", "decoder" and "mask_network".
        sources: How many sources the model has in it: "all" K, or "mixed", no more than mixtures hold at most, so that
            no two outputs come to share one source; the spare ones are added after it. "spare" has all, and is left
            out where there are none to spare.
        share: Its share of the whole training's mixtures, relative to the other phases'; > 0.
        most: Mixtures after which more of it gains nothing, whatever its share: what is left is shared out among the
            other phases; 0 is no limit.
        rounds: How often it is repeated, each time with the model as the round before left it as a frozen teacher; from
            1 to 1,000. A short training does fewer rounds (see `training.recipe`).
        batch_size: Mixtures a step, over all replicas; even where mixtures are remixed, which pairs them.
        learning_rate: Adam's learning rate at the start of each round; > 0.
        learning_rate_schedule: "constant", "cosine" (to `learning_rate_floor` at the last step) or "exponential"
            (multiplied by `learning_rate_decay` after each epoch while above `learning_rate_floor`).
        learning_rate_decay: Factor an epoch, in (0, 1], of "exponential".
        learning_rate_floor: Least learning rate of "cosine" and "exponential".
        kl_schedule: How the KL weight (beta) changes: "constant", "linear" or "decay"; see `training.schedules`.
        kl_weight: The weight it starts from, or rises to ("linear"); >= 0.
        kl_weight_end: The weight that "decay" ends with; >= 0.
        kl_warmup_epochs: Epochs over which the weight first rises linearly from zero.
        kl_decay_start: Share of the phase, in [0, 1], after which "decay" begins.
        kl_decay_end: Share of the phase, in [0, 1], after which "decay" has ended.
        remix_weight: Weight of the remixed mixtures' loss in "remixed_elbo"; > 0.
        remix_masked: Whether "remixed_elbo" also judges the masked estimates.
        remix_silence: Share of a mixture's energy, in [0, 1), below which a separated source is taken for silence
            before it is remixed: it teaches the outputs that a mixture does not need to stay silent. Without effect
            where every mixture needs all outputs.
        remix_from: Where the sources of a remixed mixture are from: "neighbours", two mixtures that exchange some of
            theirs, or "sparsest", those mixtures of the batch that hold the fewest (`objectives.remixing`).
        keep: Which model the phase ends with: "last", or "best" by the validation mixtures (see `Recipe.choose_by`).
        steps_per_execution: Steps in one compiled call.
        jit_compile: Whether the step is compiled by XLA.
        mixed_precision: Keras' dtype policy; "auto" takes "mixed_bfloat16" where that is faster (`training.precision`).

    Example:
        >>> Phase("remix", objective="remixed_elbo", batch_size=128).remixes
        True
    """

    name: str = "separate"
    objective: str = "elbo"
    trains: tuple[str, ...] = ("encoder", "decoder")
    sources: str = "all"
    share: float = 1.0
    most: int = 0
    rounds: int = 1
    batch_size: int = 64
    learning_rate: float = 1e-3
    learning_rate_schedule: str = "cosine"
    learning_rate_decay: float = 0.9998
    learning_rate_floor: float = 0.0
    kl_schedule: str = "constant"
    kl_weight: float = 0.5
    kl_weight_end: float = 0.1
    kl_warmup_epochs: float = 0.0
    kl_decay_start: float = 0.5
    kl_decay_end: float = 0.8
    remix_weight: float = 1.0
    remix_masked: bool = False
    remix_silence: float = 0.0
    remix_from: str = "neighbours"
    keep: str = "last"
    steps_per_execution: int = 32
    jit_compile: bool = True
    mixed_precision: str = "float32"

    def __post_init__(self) -> None:
        check(self.name.isidentifier(), "name", self.name, "a word")
        check_choice("objective", self.objective, OBJECTIVES)
        check(bool(self.trains), "trains", self.trains, "one or more parts")
        for part in self.trains:
            check_choice("part", part, PARTS)
        check(1 <= self.rounds <= 1_000, "rounds", self.rounds, "from 1 to 1,000")
        for name in ("batch_size", "steps_per_execution"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        check(self.most >= 0, "most", self.most, "0 or more")
        for name in ("share", "learning_rate", "remix_weight"):
            check(getattr(self, name) > 0, name, getattr(self, name), "greater than 0")
        check(0 < self.learning_rate_decay <= 1, "learning_rate_decay", self.learning_rate_decay, "in (0, 1]")
        for name in ("learning_rate_floor", "kl_weight", "kl_weight_end", "kl_warmup_epochs"):
            check(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        check(0 <= self.remix_silence < 1, "remix_silence", self.remix_silence, "in [0, 1)")
        of_masks = self.objective == "masked_remix"
        check("mask_network" not in self.trains or of_masks, "objective", self.objective,
              "masked_remix, which alone trains the mask network")  # fmt: skip
        check(not self.remixes or self.batch_size % 2 == 0, "batch_size", self.batch_size,
              "even for remixing, which pairs mixtures")  # fmt: skip
        check(
            0 <= self.kl_decay_start <= self.kl_decay_end <= 1,
            "kl_decay_start, kl_decay_end",
            (self.kl_decay_start, self.kl_decay_end),
            "shares of the phase, in order, in [0, 1]",
        )
        check_choice("learning_rate_schedule", self.learning_rate_schedule, LEARNING_RATE_SCHEDULES)
        check_choice("kl_schedule", self.kl_schedule, KL_SCHEDULES)
        check_choice("mixed_precision", self.mixed_precision, PRECISIONS)
        check_choice("remix_from", self.remix_from, REMIX_ORIGINS)
        check_choice("keep", self.keep, ("last", "best"))
        check_choice("sources", self.sources, SOURCES)

    @property
    def remixes(self) -> bool:
        """Whether its steps remix separated sources."""
        return self.objective in ("remixed_elbo", "masked_remix")

    @property
    def final_kl_weight(self) -> float:
        """The KL weight that the phase ends with."""
        return self.kl_weight_end if self.kl_schedule == "decay" else self.kl_weight


@dataclasses.dataclass(frozen=True)
class Recipe(Settings):
    """How a model is trained: the phases, one after the other, and their whole budget.

    Attributes:
        epochs: The whole budget, shared out among the phases; at least 1.
        mixtures_per_epoch: Mixtures an epoch, rounded up to a whole number of compiled calls.
        validation_mixtures: Fixed held-out mixtures that each phase is measured on after each epoch.
        early_stopping: Epochs without a better validation score before a phase ends; 0 never ends one early.
        choose_by: The validation score by which a phase keeps the best model and stops early: "objective", that of its
            objective, or "remixing", which is, in phases that remix, the score that needs no true sources
            (`metrics.consistency`).
        seed: Seed of initialisation, mixtures and noise; below 2**31 - 2**24.
        prior_weight: Weight of the prior where no phase has an ELBO that says it, as where a mask network alone is
            trained on: `--init` takes it from the run that it begins with; >= 0.
        phases: The phases, in order; their names differ.

    Example:
        >>> Recipe(epochs=10).phases[0].objective
        'elbo'
    """

    epochs: int = 30
    mixtures_per_epoch: int = 30_000
    validation_mixtures: int = 1_000
    early_stopping: int = 0
    choose_by: str = "objective"
    seed: int = 0
    prior_weight: float = 1.0
    phases: tuple[Phase, ...] = (Phase(),)

    def __post_init__(self) -> None:
        for name in ("epochs", "mixtures_per_epoch", "validation_mixtures"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("early_stopping", "seed", "prior_weight"):
            check(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        check_choice("choose_by", self.choose_by, CHOOSERS)
        are_paired = self.choose_by == "remixing" or any(phase.objective == "masked_remix" for phase in self.phases)
        check(not are_paired or self.validation_mixtures > 1, "validation_mixtures", self.validation_mixtures,
              "2 or more, which are remixed")  # fmt: skip
        check(self.seed < 2**31 - 2**24, "seed", self.seed, f"below {2**31 - 2**24}")
        names = [phase.name for phase in self.phases]
        check(bool(names) and len(set(names)) == len(names), "phases", names, "one or more of different names")

    @classmethod
    def _field(cls, name: str, value: Any, default: Any) -> Any:
        if name != "phases":
            return super()._field(name, value, default)
        check(isinstance(value, tuple), name, value, "a list of phases")
        return tuple(phase if isinstance(phase, Phase) else Phase.from_dict(phase) for phase in value)

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings as a dictionary that JSON can hold."""
        return {**super().to_dict(), "phases": [phase.to_dict() for phase in self.phases]}

    @property
    def final_kl_weight(self) -> float:
        """The KL weight that the last phase with an ELBO ends with; `prior_weight` where there is none."""
        of_elbo = (p.final_kl_weight for p in reversed(self.phases) if p.objective.endswith("elbo"))
        return next(of_elbo, self.prior_weight)
