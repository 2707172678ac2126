"""Trains a model by its recipe: one call of Keras' `fit` for each phase of the plan."""

import functools
import math
import shutil
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from training import cluster, figures, loop, systems, truth_free
from training import strategy as devices
from training.backup import Backup, EpochBackup, Progress
from training.callbacks import BestModel, EarlyStopping, ProgressBar, RemixScore, SeparationSummaries
from training.history import History, read_history, write_history
from training.learner import Learner
from training.recipe import PlannedPhase, plan
from training.run import Run
from training.schedules import kl_weight_schedule, learning_rate_schedule
from training.warm_start import begin_from
from vae_bss_tf import baselines
from vae_bss_tf.datasets import SourceBank, pipeline
from vae_bss_tf.domains import domain_of
from vae_bss_tf.errors import DataError
from vae_bss_tf.files import replacing
from vae_bss_tf.model import MultiSourceVAE
from vae_bss_tf.objectives import Elbo, MaskedRemix, Noise, Objective, RemixedElbo

_PICTURED = 10
_COPIES_ON_DISK = 14  # two states and one being written, each with both moments of Adam, and five models beside them


class Trainer:
    """Trains the model of a run: `prepare`, then `train`.

    Args:
        run: The run; its settings, system and folder.
        banks: The sources, by split.
        distribution: The devices.
        quiet: Whether to print one plain line an epoch instead of a progress bar.
        rates: Mixtures per second of each phase, where they are known, for the time left.
    """

    def __init__(
        self,
        run: Run,
        banks: dict[str, SourceBank],
        distribution: tf.distribute.Strategy,
        *,
        quiet: bool,
        rates: Mapping[str, float] | None = None,
    ) -> None:
        self.run = run
        self.banks = banks
        self.distribution = distribution
        self.quiet = quiet
        self.rates = rates or {}
        self.preset = run.preset
        self.domain = domain_of(run.preset.audio)
        self.plan = plan(run.preset.recipe)
        data = "/".join(banks[split].fingerprint() for split in ("train", "validation"))
        self.backup = Backup(run.path / "backup", f"{run.preset.config_hash()}/{data}")
        held_out = pipeline.evaluation_data(
            self.preset,
            banks["validation"],
            num_mixtures=self.preset.recipe.validation_mixtures,
            seed=self.preset.recipe.seed,
        )
        self.validation = held_out.mixtures
        self.shown = held_out.first(_PICTURED)

    def prepare(self, source: MultiSourceVAE | None = None, resume: str | None = None) -> None:
        """Makes the model that the training begins with. Nothing is written yet.

        Args:
            source: The model whose weights a new training begins with; None begins anew. A resumed training has its
                own, if it came as far as a first backup.
            resume: The state to resume from, as `Backup.progress` takes it; None begins at the beginning.

        Raises:
            CheckpointError: The state is missing, damaged, or belongs to other settings or data; or `source` is of
                another network.
            DataError: There is no space for the training's files.
        """
        keras.utils.set_random_seed(self.preset.recipe.seed)
        self.done = self.backup.progress(resume) if resume is not None else None
        done = self.done
        cluster.agree(self.distribution, lambda: repr(done and done._replace(state=None)))
        with self.distribution.scope():
            self.model = self.model_for(self.plan[0 if done is None else done.phase])
            if done is not None:
                self.backup.load_begin(self.model)
            elif source is not None:
                begin_from(self.model, source)
        checksums = [zlib.crc32(np.ascontiguousarray(weight).data) for weight in self.model.get_weights()]
        cluster.agree(self.distribution, lambda: repr(checksums))
        self._check_disk(self.model)

    @property
    def was_finished(self) -> bool:
        """Whether nothing was left to train when it was prepared."""
        last, done = self.plan[-1], self.done
        return done is not None and done.phase == last.index and done.epochs >= self._end(last, done)

    def _end(self, planned: PlannedPhase, done: Progress) -> int:
        """The epoch that a phase ends before: the plan's, or where it was stopped early before a resume."""
        patience = self.preset.recipe.early_stopping
        has_ended = patience and EarlyStopping.has_ended(patience, done.scores)
        return done.epochs if has_ended else planned.first_epoch + planned.epochs

    def train(self) -> dict[str, Any]:
        """Trains all phases that are left of what is prepared, and writes `model.keras` and the history.

        Returns:
            "seconds", "epochs", "epochs_before_resume", "mixtures" and "mixtures_per_second".

        Raises:
            DataError: The loss is not finite any more.
        """
        model, done = self.model, self.done
        if done is None:
            done = Progress()
            self.backup.begin_phase(done, model)
        self.backup.discard_after(done.epochs)
        self._truncate_history(done.epochs)
        bar = ProgressBar(self.plan, done.epochs, self.quiet, self.rates)
        before = done
        for planned in self.plan[before.phase :]:
            if planned.index > before.phase:
                with self.distribution.scope():
                    model = self.model_for(planned, model)
                done = done._replace(phase=planned.index, epochs=planned.first_epoch, scores=(), state=None)
                self.backup.begin_phase(done, model)
            done = self._fit(planned, model, done, bar)
            save_model(self._whole(model), self.run.path / "model.keras")
        bar.close()
        rows = read_history(self.run.path / "history.csv")
        figures.save(figures.history(rows), self.run.path / "history.png")
        return {
            "seconds": round(done.seconds, 1),
            "epochs": done.trained,
            "epochs_before_resume": before.trained,
            "mixtures": done.mixtures,
            "mixtures_per_second": round(bar.mixtures_per_second or done.mixtures / max(done.seconds, 1e-3)),
        }

    def _whole(self, model: keras.Model) -> keras.Model:
        """The model in float32 with all sources of the settings; those that no phase trained yet are untrained."""
        if model.config == self.preset.model and model.dtype_policy.name == "float32":
            return model
        whole = MultiSourceVAE(self.preset.model, self.preset.recipe.final_kl_weight)
        begin_from(whole, model)
        return whole

    def model_for(self, planned: PlannedPhase, model: keras.Model | None = None) -> keras.Model:
        """The model in the precision of a phase and with as many sources.

        Args:
            planned: The phase.
            model: The model as the phase before left it; None for an untrained one.

        Returns:
            `model` itself where it is as the phase wants it.
        """
        if systems.is_baseline(self.run.system):
            made = baselines.build(self.run.system, self.preset.model, seed=self.preset.recipe.seed)
            if model is not None:
                made.set_weights(model.get_weights())  # without the optimizer of the phase before
            return made
        config, precision = self.preset.model, planned.phase.mixed_precision
        if planned.phase.sources == "mixed":
            config = config.replace(num_sources=min(config.num_sources, self.preset.data.max_mixed))
        if model is not None and (model.config, model.dtype_policy.name) == (config, precision):
            return model
        # Added sources begin at random: a resumed training must draw what it would have drawn without a pause.
        keras.utils.set_random_seed(self.preset.recipe.seed + planned.index)
        made = MultiSourceVAE(config, self.preset.recipe.final_kl_weight, dtype=precision)
        if model is not None:
            begin_from(made, model)
        return made

    def _fit(self, planned: PlannedPhase, model: keras.Model, done: Progress, bar: ProgressBar) -> Progress:
        """Trains one phase to its end and returns how far the training has come then."""
        phase = planned.phase
        with self.distribution.scope():
            learner = self.learner(planned, model)
        if done.state is not None:
            self.backup.load_epoch(learner, done.state)
        end = self._end(planned, done)
        bar.begin(planned)
        monitor = self._monitor(planned, learner) if isinstance(learner, Learner) else None
        kept = EpochBackup(self.backup, planned, done, monitor)
        started = time.perf_counter()
        fit = functools.partial(loop.fit, learner)
        if not cluster.spans_hosts(self.distribution):
            fit = functools.partial(learner.fit, verbose=0, shuffle=False)
        fit(
            pipeline.training_data(
                self.preset,
                self.banks["train"],
                batch_size=phase.batch_size,
                start_step=planned.first_step + (done.epochs - planned.first_epoch) * planned.steps_per_epoch,
            ),
            epochs=end,
            initial_epoch=done.epochs,
            steps_per_epoch=planned.steps_per_epoch,
            validation_data=self._validation_data(planned) if isinstance(learner, Learner) else None,
            callbacks=[*self._callbacks(planned, learner, done, monitor, bar), kept],
        )
        self._check_finite()
        return kept.done._replace(seconds=done.seconds + time.perf_counter() - started)

    def learner(self, planned: PlannedPhase, model: keras.Model) -> keras.Model:
        """What `fit` trains in a phase: the model with the phase's objective, compiled; or a baseline."""
        phase = planned.phase
        if systems.is_baseline(self.run.system):
            learner = baselines.learner(phase.objective, model, self.preset.recipe.seed)
        else:
            learner = Learner(model, self._objective(planned, model), phase.trains)
        learner.compile(
            optimizer=keras.optimizers.Adam(learning_rate_schedule(phase, planned.steps_per_epoch, planned.num_steps)),
            jit_compile=phase.jit_compile and devices.can_jit_compile(self.distribution),
            steps_per_execution=min(phase.steps_per_execution, planned.steps_per_epoch),
        )
        # The first step would make the optimizer's variables, and be traced and compiled a second time for it.
        learner.optimizer.build(learner.trainable_variables)
        return learner

    def _objective(self, planned: PlannedPhase, model: MultiSourceVAE) -> Objective:
        phase = planned.phase
        noise = Noise(self.preset.recipe.seed, planned.first_step)
        some_are_silent = model.config.num_sources > min(self.preset.data.num_mixed)
        silence = phase.remix_silence if some_are_silent else 0.0
        by_mask_network = model.mask_network is not None and model.mask_network.is_trained
        if phase.objective == "masked_remix":
            teacher = model.copy(mask_network=by_mask_network)
            return MaskedRemix(teacher, self.domain, silence, noise, phase.remix_from)
        beta = kl_weight_schedule(phase, planned.steps_per_epoch, planned.num_steps)
        elbo = Elbo(beta, phase.final_kl_weight, noise)
        if phase.objective == "elbo":
            return elbo
        return RemixedElbo(
            elbo, self.domain, phase.remix_weight, silence, phase.remix_masked, phase.remix_from, by_mask_network
        )

    def _monitor(self, planned: PlannedPhase, learner: Learner) -> str:
        by_remixing = self.preset.recipe.choose_by == "remixing" and planned.phase.remixes
        return f"val_{RemixScore.NAME if by_remixing else learner.objective.monitor}"

    def _remix_score(self, separate: truth_free.Separate) -> float:
        num_mixed = truth_free.sources_of(self.preset, has_truth=self.banks["validation"].has_truth)
        return truth_free.remix_si_sdri(separate, self.validation, self.domain, num_mixed)

    def validate(self, planned: PlannedPhase, learner: keras.Model) -> None:
        """Scores what a phase trains as it is scored after each epoch.

        Args:
            planned: The phase.
            learner: What `learner` gave for it.
        """
        if isinstance(learner, Learner):
            learner.evaluate(self._validation_data(planned), verbose=0)
            if self.preset.recipe.choose_by == "remixing":
                self._remix_score(learner.separator.separate)

    def _validation_data(self, planned: PlannedPhase) -> tf.data.Dataset:
        replicas = self.distribution.num_replicas_in_sync
        each = replicas * (2 if planned.phase.remixes else 1)  # every replica's mixtures are paired
        batch = min(planned.phase.batch_size, len(self.validation) // each * each or 1)
        even = replicas > 1 or planned.phase.remixes
        return (
            tf.data.Dataset.from_tensor_slices({"mixture": self.validation}).batch(batch, drop_remainder=even).cache()
        )

    def _callbacks(
        self, planned: PlannedPhase, learner: keras.Model, done: Progress, monitor: str | None, bar: ProgressBar
    ) -> list[keras.callbacks.Callback]:
        history, tensorboard = self.run.path / "history.csv", self.run.path / "tensorboard"
        of_separators: list[keras.callbacks.Callback] = []
        if monitor is not None:
            if planned.phase.keep == "best":
                of_separators.append(BestModel(self.backup, planned, monitor, done.scores))
            of_separators.append(
                SeparationSummaries(
                    tensorboard / "separation",
                    self.shown,
                    learner.separator.separate,
                    self.preset.recipe.epochs,
                )
            )
            if self.preset.recipe.early_stopping:
                of_separators.append(EarlyStopping(self.preset.recipe.early_stopping, monitor, done.scores))
        scored = monitor is not None and self.preset.recipe.choose_by == "remixing"
        return [
            keras.callbacks.TerminateOnNaN(),
            *([RemixScore(self._remix_score)] if scored else []),
            History(history, planned, done),
            *of_separators,
            keras.callbacks.TensorBoard(str(tensorboard), write_graph=False),
            bar,
        ]

    def _truncate_history(self, epochs: int) -> None:
        path = self.run.path / "history.csv"
        write_history(path, [row for row in read_history(path) if row["epoch"] < epochs])

    def _check_finite(self) -> None:
        rows = read_history(self.run.path / "history.csv")
        if rows and not math.isfinite(rows[-1].get("loss", 0.0)):
            raise DataError(
                f"the loss is not finite any more in epoch {rows[-1]['epoch'] + 1:.0f}; lower its learning rate "
                f"(--set recipe.{rows[-1]['phase'].split()[0]}.learning_rate=...) and train into another --output."
            )

    def _check_disk(self, model: keras.Model) -> None:
        needed = _COPIES_ON_DISK * 4 * model.count_params()
        there = next(folder for folder in (self.run.path, *self.run.path.absolute().parents) if folder.is_dir())
        free = shutil.disk_usage(there).free
        if free < needed:
            raise DataError(
                f"no space left on the disk of {self.run.path}: a training of this model needs {needed / 1e6:.0f} MB, "
                f"{free / 1e6:.0f} MB are free. Free some, or choose another --output."
            )


def save_model(model: keras.Model, path: Path) -> None:
    """Saves a model in one move.

    Args:
        model: The model.
        path: Where it shall stand, ending in ".keras".
    """
    with replacing(path) as partial:
        model.save(partial)
