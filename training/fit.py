"""Trains a separator from mixtures alone: `python -m training.fit --dataset mnist`."""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training import systems
from training.memory import keep_freed_memory
from training.options import default_output, parser, resolve
from vae_bss_tf.arguments import parsed
from vae_bss_tf.baselines import OBJECTIVES
from vae_bss_tf.checks import check_budget, check_choice, check_minutes
from vae_bss_tf.config import Preset
from vae_bss_tf.datasets import pipeline
from vae_bss_tf.domains import domain_of
from vae_bss_tf.errors import CheckpointError, ConfigError, DataError, run_command
from vae_bss_tf.phases import MODEL_OBJECTIVES, Recipe
from vae_bss_tf.settings import first_difference
from vae_bss_tf.startup import import_tensorflow

if TYPE_CHECKING:
    from training.run import Run
    from vae_bss_tf.model import MultiSourceVAE

_STARTED = time.perf_counter()  # of the process, when this is its command


def train(
    preset: Preset,
    *,
    output: Path,
    data_dir: Path | None = None,
    system: str = "vae",
    strategy: str = "auto",
    minutes: float | None = None,
    resume: str | None = None,
    init: Path | None = None,
    force: bool = False,
    quiet: bool = True,
    started: float | None = None,
) -> "Run":
    """Trains a model through all phases of its recipe and fills its run folder (see `training.run`).

    Args:
        preset: Settings of the model, the data and the recipe.
        output: The run folder.
        data_dir: Folder of the data set's files, as `datasets.load_bank` takes it.
        system: What to train, one of `systems.trained()`.
        strategy: As `training.strategy.make_strategy` takes it.
        minutes: How long the whole may take: the speed of each phase is measured first, and the epochs are planned to
            end in time. None trains the recipe's own number of epochs. A resumed run repeats its plan.
        resume: "latest" or a backup's name resumes the run in `output`; None starts a new one.
        init: Folder of a finished run whose weights the training begins with; None begins anew. It may have fewer
            sources: the heads of the encoder for the added ones begin anew. A resumed run has its own weights.
        force: Whether an earlier run in `output` is deleted first.
        quiet: Whether to print one plain line an epoch instead of a progress bar.
        started: When the minutes began to count, as `time.perf_counter` gives it; None counts from this call.

    Returns:
        The run, with its model, metrics and figures written.

    Raises:
        ConfigError: The settings do not fit the data or each other.
        DataError: The data cannot be read.
        OutputExistsError: `output` holds something already.
        CheckpointError: The run to resume or to begin with is missing or damaged, or has other settings or another
            network.
        OSError: The disk is full or not writable.
    """
    started = time.perf_counter() if started is None else started
    preset = completed(preset, check_choice("system", system, systems.trained()))
    if init is not None:
        preset = _begun_from(preset, init)
    if resume is None and init is None and preset.recipe.phases[0].remixes:
        raise ConfigError(
            f"the phase {preset.recipe.phases[0].name} remixes what a model separates, and an untrained one separates "
            "nothing: begin with a finished run, --init RUN, or with a phase that separates."
        )
    if resume is not None and system == "glo":
        raise ConfigError("no backup holds the latents that glo fits: it is not resumed; train it anew by --force.")
    if minutes is not None:
        check_minutes(minutes)
    if strategy == "multi-worker" and minutes is not None:
        raise ConfigError("several hosts are not as fast as each alone: plan them by --epochs in place of --minutes.")

    from training import cluster
    from training import strategy as devices
    from training.precision import with_resolved_precision
    from training.run import Run, exclusive
    from training.trainer import Trainer
    from training.warm_start import source_of

    early = devices.make_strategy(strategy) if strategy in devices.EARLY else None
    banks = pipeline.load_banks(preset, data_dir)
    distribution = early or devices.make_strategy(strategy)
    _check_batches(preset, system, distribution.num_replicas_in_sync)
    source = source_of(init, system, preset.audio) if init is not None and resume is None else None
    mine = cluster.place_in(distribution)
    rates: dict[str, float] = {}
    with cluster.own_folder(mine, output, resume=resume is not None) as folder:
        if resume is None:
            Run.check_new(folder, force=force)
            preset = with_resolved_precision(preset)
            if minutes is not None:
                preset, rates = _within_minutes(preset, system, banks, distribution, source, minutes, started)
            run = Run(folder, preset, system, None if init is None else str(init))
        else:
            run = _resumed(folder, preset, system, init, planned_in_minutes=minutes is not None)
        print(f"device: {devices.describe(distribution)}\nwriting to: {output}", flush=True)
        with cluster.silent(mine):
            settings = (run.preset.config_hash(), system, run.init)
            cluster.agree(distribution, lambda: repr((settings, [bank.checksum() for bank in banks.values()])))
            with contextlib.ExitStack() as stack:
                if resume is not None:
                    stack.enter_context(exclusive(folder))
                trainer = Trainer(run, banks, distribution, quiet=quiet, rates=rates)
                if init is not None and resume is not None and not trainer.backup.has_begun:
                    source = source_of(init, system, preset.audio)
                trainer.prepare(source, resume)
                if resume is None:  # what the user may have got wrong was found by now: an earlier run may go
                    Run.create(folder, preset, system, init=run.init, force=force)
                    stack.enter_context(exclusive(folder))
                trained = trainer.train()
                if resume is not None and trainer.was_finished:  # what is resumed for no epoch took no time
                    with contextlib.suppress(CheckpointError):  # damaged ones are written anew
                        trained |= {name: run.metrics[name] for name in trained if name in run.metrics}
            if mine.is_chief:
                from training.results import write_results

                write_results(run, banks["test"], trained, devices.describe(distribution))
            cluster.agree(distribution, lambda: "finished")
    return Run(output, run.preset, system, run.init)


def completed(preset: Preset, system: str) -> Preset:
    """Adapts a preset to the system that is trained.

    Args:
        preset: The settings.
        system: A trained system's name.

    Returns:
        For "vae" the preset itself, without the phases for spare sources where there are none or where mixtures are
        taken as they are; for "ae" the same without sampling, remixing and a mask network; for a baseline one phase for
        each of its objectives.

    Raises:
        ConfigError: The system is not for the preset's domain.
    """
    if system == "vae":
        for phase in preset.recipe.phases:
            check_choice(f"objective of the phase {phase.name}", phase.objective, MODEL_OBJECTIVES)
        if preset.data.max_mixed == 1:  # mixtures as they are: how many sources they hold is not known
            return _of_all_sources(preset)
        spare = preset.model.num_sources > preset.data.max_mixed
        phases = tuple(phase for phase in preset.recipe.phases if spare or phase.sources != "spare")
        return preset.replace(recipe=preset.recipe.replace(phases=phases))
    kind = domain_of(preset.audio).kind
    if not systems.trains_on(system, kind):
        raise ConfigError(f"{system} is not made for {kind}; train another --system.")
    first = preset.recipe.phases[0]
    # In the recipe the later phases bring the rate down to zero.
    floor = 0.0 if first.learning_rate_schedule == "cosine" else first.learning_rate_floor
    first = first.replace(name="train", share=1.0, rounds=1, keep="last", sources="all", learning_rate_floor=floor)
    if system == "ae":
        phases = (first.replace(objective="elbo", trains=("encoder", "decoder")),)
    else:
        precision = "float32" if first.mixed_precision == "auto" else first.mixed_precision
        phases = tuple(
            first.replace(
                name="train" if objective == "own" else objective, objective=objective, mixed_precision=precision
            )
            for objective in OBJECTIVES[system]
        )
    model = preset.model.replace(variational=system != "ae", mask_channels=())
    return preset.replace(model=model, recipe=preset.recipe.replace(phases=phases))


def _begun_from(preset: Preset, init: Path) -> Preset:
    """The preset without phases of fewer sources than the run has that the training begins with, and with its prior."""
    from training.run import Run

    theirs = Run.load(init).preset
    of_elbo = any(phase.objective.endswith("elbo") for phase in preset.recipe.phases)
    if not of_elbo and preset.recipe.prior_weight == Recipe.prior_weight:
        preset = preset.replace(recipe=preset.recipe.replace(prior_weight=theirs.recipe.final_kl_weight))
    if theirs.model.num_sources <= preset.data.max_mixed:
        return preset
    return _of_all_sources(preset)


def _of_all_sources(preset: Preset) -> Preset:
    """The preset with as many sources in each phase as the model has."""
    phases = [phase.replace(sources="all") for phase in preset.recipe.phases if phase.sources != "spare"]
    return preset.replace(recipe=preset.recipe.replace(phases=tuple(phases)))


def _check_batches(preset: Preset, system: str, replicas: int) -> None:
    if systems.is_baseline(system):
        if replicas > 1:
            raise ConfigError(f"{system} trains on one device; use --strategy single.")
        if preset.recipe.phases[0].mixed_precision != "float32":
            raise ConfigError(f"{system} trains in float32; leave out --mixed-precision.")
        if preset.recipe.early_stopping:
            raise ConfigError(f"{system} has no validation score to stop by; leave out --early-stopping.")
    for phase in preset.recipe.phases:
        pairs = 2 if phase.remixes else 1
        if phase.batch_size % (pairs * replicas):
            raise ConfigError(
                f"the phase {phase.name} has a batch of {phase.batch_size} for {replicas} devices; use a --batch-size "
                f"divisible by {pairs * replicas}."
            )


def _within_minutes(
    preset: Preset,
    system: str,
    banks: Any,
    distribution: Any,
    source: "MultiSourceVAE | None",
    minutes: float,
    started: float,
) -> tuple[Preset, dict[str, float]]:
    """The preset with as many epochs as fit into a time, and the measured mixtures per second of each phase."""
    import tempfile

    from training import speed
    from training.recipe import within_minutes
    from training.run import Run
    from training.trainer import Trainer

    print("measuring how fast each phase is trained on this machine ...", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        trial = preset.replace(
            recipe=preset.recipe.replace(epochs=max(preset.recipe.epochs, len(preset.recipe.phases)))
        )
        trainer = Trainer(Run(Path(folder), trial, system), banks, distribution, quiet=True)
        speeds = speed.measured(trainer, source)
    rates = {name: found.mixtures_per_second for name, found in speeds.items()}
    told = ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items())
    print(f"measured, in mixtures per second: {told}", flush=True)
    recipe = within_minutes(preset.recipe, minutes, speeds, time.perf_counter() - started)
    print(f"planned: {recipe.epochs} epochs of {recipe.mixtures_per_epoch:,} mixtures", flush=True)
    return preset.replace(recipe=recipe), rates


def _resumed(output: Path, preset: Preset, system: str, init: Path | None, *, planned_in_minutes: bool) -> "Run":
    """The run in `output`, to be resumed by a command of these settings."""
    from training.backup import Backup
    from training.precision import with_resolved_precision
    from training.run import Run

    run = Run.load(output)
    wanted, found = with_resolved_precision(preset, run.preset), run.preset
    if init is None and run.init is not None:  # as it was when it was given
        wanted = wanted.replace(recipe=wanted.recipe.replace(prior_weight=found.recipe.prior_weight))
    if planned_in_minutes:
        rounds = {phase.name: phase.rounds for phase in found.recipe.phases}
        phases = tuple(p.replace(rounds=rounds.get(p.name, p.rounds)) for p in wanted.recipe.phases)
        budget = {"epochs": found.recipe.epochs, "mixtures_per_epoch": found.recipe.mixtures_per_epoch}
        wanted = wanted.replace(recipe=wanted.recipe.replace(**budget, phases=phases))
    if run.system != system or found != wanted:
        stored, given = {"system": run.system, **found.to_dict()}, {"system": system, **wanted.to_dict()}
        raise CheckpointError(
            f"{output} was trained with other settings ({first_difference(stored, given)}); give the same command "
            "again with --resume, or another --output."
        )
    if not Backup(output / "backup", found.config_hash()).has_begun:
        if run.metrics:
            raise CheckpointError(f"{output} is finished and has no backup; there is nothing to resume.")
        if run.init is not None and init is None:
            raise CheckpointError(
                f"{output} was interrupted before its first backup; to begin with {run.init} again, give --init too."
            )
    return run


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: Its words; those of the process by default.

    Returns:
        The exit code.
    """
    options = parsed(parser(), arguments)
    keep_freed_memory()
    started = _STARTED if arguments is None else time.perf_counter()
    code = run_command(lambda: _command(options, started))
    if code and options.strategy == "multi-worker" and "training.cluster" in sys.modules:
        from training import cluster

        cluster.leave(code)
    return code


def _command(options: argparse.Namespace, started: float) -> None:
    name, preset = resolve(options)
    check_budget(options.epochs, options.minutes)
    if options.resume == "":
        raise ConfigError("--resume names no backup; leave the name out for the latest.")
    if options.resume is not None and options.force:
        raise ConfigError("--resume goes on with what --force deletes; give one of them.")
    if options.dry_run:
        trained = completed(preset, check_choice("system", options.system, systems.trained()))
        print(json.dumps(trained.to_dict(), indent=2))
        return
    if preset.model.num_sources < preset.data.max_mixed:
        print(
            f"warning: the model has {preset.model.num_sources} sources and mixtures hold up to "
            f"{preset.data.max_mixed}; some outputs will hold more than one. Use --num-sources.",
            file=sys.stderr,
        )
    _check_data_dir(options.data_dir)
    import_tensorflow()
    run = train(
        preset,
        output=options.output or default_output(name, preset, options.system),
        data_dir=options.data_dir,
        system=options.system,
        strategy=options.strategy,
        minutes=options.minutes,
        resume=options.resume,
        init=options.init,
        force=options.force,
        quiet=options.quiet or not sys.stderr.isatty(),
        started=started,
    )
    if options.strategy == "multi-worker":
        from training import cluster

        if not cluster.place().is_chief:
            return
    report(run)
    print(f"pictures: {run.path / 'separation.png'}, {run.path / 'history.png'}")
    where = f" --data-dir {options.data_dir}" if options.data_dir else ""
    print(f"next: python -m training.evaluate --run {run.path}{where}")
    if not run.metrics["test"]["has_truth"]:
        print(f"or: python -m vae_bss_tf.separate FILE --model {run.path} --output DIR")


def _check_data_dir(folder: Path | None) -> None:
    if folder is not None and not folder.is_dir():
        raise DataError(f"no folder {folder}; give --data-dir the folder that holds the data set's files.")


def report(run: "Run") -> None:
    """Prints the scores of a finished run and, where no true sources are known, what is.

    Args:
        run: The run.
    """
    from training import truth_free

    test = run.metrics["test"]
    for name, scores in test.items():
        if isinstance(scores, dict) and name != "without_truth":
            print(
                f"{name.upper()} on {test['mixtures']} test mixtures: SI-SDR {scores['si_sdr']:.2f} dB, "
                f"PSNR {scores['psnr']:.2f} dB (sources at full scale), {scores['psnr_halved']:.2f} dB (at half)"
            )
    if not test["has_truth"]:
        print(f"what is known of {test['mixtures']} test mixtures, whose true sources nobody knows:")
    for line in truth_free.described(test["without_truth"]):
        print(f"  {line}" if not test["has_truth"] else line)
    print(f"{run.metrics['seconds']:.0f} s, {run.metrics['mixtures_per_second']:,} mixtures/s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
