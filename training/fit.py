"""Trains a separator from mixtures alone: `python -m training.fit --dataset mnist`."""

import argparse
import dataclasses
import json
import math
import shutil
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from training import stages, systems
from training.memory import keep_freed_memory
from vae_bss_tf.config import (
    BEGUN_FROM,
    PRESETS,
    ConfigError,
    ModelConfig,
    Preset,
    check_choice,
    get_preset,
)
from vae_bss_tf.datasets import AUDIO_DATASETS, DATASETS, pipeline
from vae_bss_tf.errors import CheckpointError, DataError, run_command
from vae_bss_tf.files import write_json

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from training.run import Run
    from vae_bss_tf.datasets import SourceBank
    from vae_bss_tf.model import MultiSourceVAE

SYSTEMS = systems.trained()
BASELINES = tuple(name for name in SYSTEMS if systems.is_baseline(name))
_PICTURED = 10
_SCORED = 1_000
_EARLY = 0.2  # share of a training in which sources have not parted
_COPIES_ON_DISK = 10  # two backups and one being written, each with both moments of Adam, and the model


def train(
    preset: Preset,
    *,
    output: Path,
    data_dir: Path | None = None,
    system: str = "vae",
    strategy: str = "auto",
    resume: str | None = None,
    init: Path | None = None,
    force: bool = False,
    quiet: bool = True,
    model_class: "type[MultiSourceVAE] | None" = None,
) -> "Run":
    """Trains a model and fills its run folder (see `training.run`).

    Args:
        preset: Settings of the model, the data and the training.
        output: The run folder.
        data_dir: Folder of the data set's files, as `datasets.load_bank` takes it.
        system: What to train, one of `SYSTEMS`.
        strategy: As `training.strategy.make_strategy` takes it.
        resume: "latest" or a backup's name goes on with the run in `output`; None starts a new one.
        init: Folder of a finished run whose encoder, decoder and, where both have one, corrector and mask network the
            training begins with; None begins anew. It may have fewer sources: the heads of the encoder for the added
            ones begin anew. A resumed run has its own weights.
        force: Whether an earlier run in `output` is deleted first.
        quiet: Whether to print one plain line an epoch instead of a progress bar.
        model_class: What "vae" and "ae" train in place of `MultiSourceVAE`: a subclass, registered with Keras.

    Returns:
        The run, with its model, metrics and figures written.

    Raises:
        ConfigError: The settings do not fit the data or each other.
        DataError: The data cannot be read.
        OutputExistsError: `output` holds something already.
        CheckpointError: The run to resume or to begin from is missing or damaged, or has other settings or another
            network.
        OSError: The disk is full or not writable.
    """
    preset = _complete(preset, check_choice("system", system, SYSTEMS))
    kind = "images" if preset.audio is None else "sound"
    if not systems.trains_on(system, kind):
        raise ConfigError(f"{system} does not separate {kind}; train another --system.")
    if strategy == "mirrored":
        from training import strategy as devices

        devices.make_strategy(strategy)  # before reading data makes TensorFlow set its devices up
    banks = pipeline.load_banks(preset, data_dir)

    import keras

    from training import backup
    from training import strategy as devices
    from training.run import exclusive
    from training.schedules import learning_rate_schedule

    config = preset.train
    distribution = devices.make_strategy(strategy)
    replicas = distribution.num_replicas_in_sync
    if system in BASELINES:
        _check_baseline(preset, system, replicas)
    if config.remix_weight and config.batch_size % (2 * replicas):
        raise ConfigError(
            f"remixing pairs mixtures on each of {replicas} devices; use a --batch-size divisible by {2 * replicas}."
        )
    if preset.model.mask_channels:
        _check_mask_training(preset, begun=init is not None or resume is not None)
    if config.remix_weight and config.remix_start < _EARLY and init is None and not resume:
        print(
            "warning: remixing almost from the start teaches what an untrained model separates; begin with a "
            "finished run, --init RUN, or set train.remix_mask_start and train.remix_start.",
            file=sys.stderr,
        )
    source = None
    if init is not None and not (resume and backup.has_state(output / "backup")):
        source = _source(init, system)
    keras.utils.set_random_seed(config.seed)
    with distribution.scope():
        model = _build(preset, system, model_class)
        if source is not None:
            _begin_from(model, source)
        model.compile(
            optimizer=keras.optimizers.Adam(learning_rate_schedule(config)),
            jit_compile=config.jit_compile and devices.can_jit_compile(distribution),
            steps_per_execution=min(config.steps_per_execution, config.steps_per_epoch),
        )
    run = _open_run(preset, system, output, resume, init, force)
    with exclusive(run.path):
        print(f"device: {devices.describe(distribution)}\nwriting to: {run.path}", flush=True)
        _check_disk(model, run.path, new=resume is None)
        _fit(run, model, banks, distribution, resume=resume, init=init, quiet=quiet)
    return run


def _fit(
    run: "Run",
    model: "keras.Model",
    banks: "dict[str, SourceBank]",
    distribution: "tf.distribute.Strategy",
    *,
    resume: str | None,
    init: Path | None,
    quiet: bool,
) -> None:
    import keras
    import tensorflow as tf

    from training import backup, callbacks, figures
    from training import strategy as devices
    from training.schedules import KLWeightSchedule

    preset, system, config = run.preset, run.system, run.preset.train
    epochs_done, seconds_before = 0, 0.0
    if resume:
        epochs_done, seconds_before = backup.restore(model, run.path / "backup", preset.config_hash(), resume)
        if not epochs_done and run.init != (None if init is None else init.name):
            raise CheckpointError(_no_backup(run))
    history_file = run.path / "history.csv"
    callbacks.truncate_history(history_file, epochs_done)
    past = [row[callbacks.MONITOR] for row in callbacks.read_history(history_file) if callbacks.MONITOR in row]

    validation = pipeline.evaluation_data(
        preset, banks["validation"], num_mixtures=config.validation_mixtures, seed=config.seed
    )
    validation_batch = min(config.batch_size, config.validation_mixtures)
    validation_data = (
        tf.data.Dataset.from_tensor_slices({"mixture": validation.mixtures})
        .batch(validation_batch, drop_remainder=distribution.num_replicas_in_sync > 1)
        .cache()
    )
    progress = callbacks.Progress(
        config.batch_size,
        config.epochs * config.steps_per_epoch * config.batch_size,
        epochs_done * config.steps_per_epoch * config.batch_size,
        quiet,
        compiled_at=(config.remix_epoch, config.remix_mask_epoch),
    )
    tensorboard = run.path / "tensorboard"
    # Baselines have no ELBO and no KL weight; they end with their last weights.
    elbo_course: list[keras.callbacks.Callback] = [
        callbacks.KLWeightCallback(KLWeightSchedule(config)),
        callbacks.Remixing(config.remix_epoch, config.remix_mask_epoch),
        callbacks.BestModel(run.path / "model.keras", past, config.remix_mask_epoch),
        callbacks.SeparationPictures(
            tensorboard / "separation",
            validation.mixtures[:_PICTURED],
            model.separate,
            config.epochs,
            audio=preset.audio,
        ),
        *(
            [callbacks.EarlyStopping(config.early_stopping, past, config.remix_mask_epoch)]
            if config.early_stopping
            else []
        ),
    ]
    course: list[keras.callbacks.Callback] = [
        *([] if system in BASELINES else elbo_course),
        keras.callbacks.TerminateOnNaN(),
        keras.callbacks.CSVLogger(str(history_file), append=True),
        keras.callbacks.TensorBoard(str(tensorboard), write_graph=False),
        progress,
        backup.EpochBackup(run.path / "backup", preset.config_hash(), seconds_before),
    ]
    started = time.perf_counter()
    with warnings.catch_warnings():
        # A corrector has no gradient before remixed sources are judged masked.
        warnings.filterwarnings("ignore", r"Gradients do not exist for variables \['[^']*corrector/")
        model.fit(
            pipeline.training_data(preset, banks["train"], start_step=epochs_done * config.steps_per_epoch),
            epochs=config.epochs,
            initial_epoch=epochs_done,
            steps_per_epoch=config.steps_per_epoch,
            validation_data=None if system in BASELINES else validation_data,
            callbacks=course,
            verbose=0,
            shuffle=False,
        )
    seconds = seconds_before + time.perf_counter() - started
    rows = callbacks.read_history(history_file)
    _check_trained(run, rows)
    if system in BASELINES:
        callbacks.save_model(model, run.path / "model.keras")

    figures.save(figures.history(rows), run.path / "history.png")
    _judge(run, banks["test"], progress, seconds, len(rows), epochs_done, devices.describe(distribution))


def _complete(preset: Preset, system: str) -> Preset:
    if system == "ae":
        preset = dataclasses.replace(preset, model=preset.model.replace(variational=False))
    if system != "vae":
        preset = dataclasses.replace(preset, train=preset.train.replace(remix_weight=0.0))
    if preset.model.mask_channels and (system != "vae" or not preset.train.remix_weight):
        raise ConfigError(
            "a mask network is the VAE's and learns from remixed sources; leave out --system, and set "
            "train.remix_weight above 0."
        )
    if preset.train.remix_mask_epoch == preset.train.epochs:  # there is nothing for a corrector to learn from
        preset = dataclasses.replace(preset, model=preset.model.replace(corrector_convolutions=(), corrector_units=()))
    if preset.model.num_sources < preset.data.max_mixed:
        print(
            f"warning: the model has {preset.model.num_sources} sources and mixtures hold up to "
            f"{preset.data.max_mixed}; some outputs will hold more than one. Use --num-sources.",
            file=sys.stderr,
        )
    return preset


def _source(init: Path, system: str) -> "keras.Model":
    from training.run import Run

    run = Run.load(init)
    if not run.metrics:
        raise CheckpointError(f"{init} is not finished; finish it with --resume, or begin with another run.")
    if system in BASELINES or run.system in BASELINES:
        raise ConfigError(f"--init is for vae and ae; {init} holds {run.system}, {system} is to be trained.")
    return run.model()


def _begin_from(model: "keras.Model", source: "keras.Model") -> None:
    if model.config.mask_channels and (
        source.config.num_sources != model.config.num_sources or (source.corrector is None) != (model.corrector is None)
    ):
        raise CheckpointError(
            "the run of --init has another number of sources, or differs in having a corrector; a mask network leaves "
            "those as they are: begin from a run with the same model settings."
        )
    for part in ("encoder", "decoder", "corrector", "mask_network"):
        ours, theirs = getattr(model, part), getattr(source, part)
        if ours is None or theirs is None:
            continue
        values = theirs.get_weights()
        if part == "encoder" and _can_grow(source.config, model.config):
            values = [
                _grown(own, value, source.config) if any(own is weight for weight in ours.head.weights) else value
                for own, value in zip(ours.weights, values, strict=True)
            ]
        if [weight.shape for weight in ours.weights] != [value.shape for value in values]:
            raise CheckpointError(
                f"the run of --init has another {part}; begin from one with the same model settings, and as many "
                "sources or fewer."
            )
        ours.set_weights(values)


def _can_grow(source: ModelConfig, ours: ModelConfig) -> bool:
    """Whether an encoder of `ours` is one of `source` but for sources that it has more."""
    alike = ("input_shape", "latent_dim", "hidden_units", "convolutions", "encoder_units", "network")
    return source.num_sources < ours.num_sources and all(getattr(source, n) == getattr(ours, n) for n in alike)


def _grown(own: "keras.Variable", value: npt.NDArray[np.float32], source: ModelConfig) -> npt.NDArray[np.float32]:
    """A weight of the head of `source` with more sources; the added ones are as in `own`."""
    by_source = (*own.shape[:-1], 2, -1, source.latent_dim)
    grown = own.numpy().copy().reshape(by_source)
    grown[..., : source.num_sources, :] = value.reshape(by_source)
    return grown.reshape(own.shape)


def _open_run(preset: Preset, system: str, output: Path, resume: str | None, init: Path | None, force: bool) -> "Run":
    from training.run import Run

    if resume is None:
        return Run.create(output, preset, system, init=None if init is None else init.name, force=force)
    from training import backup

    run = Run.load(output)
    if run.system != system or run.preset != preset:
        raise CheckpointError(
            f"{output} was trained with other settings; give the same command again with --resume, or another --output."
        )
    if run.metrics and not backup.has_state(output / "backup"):
        raise CheckpointError(f"{output} is finished and has no backup; there is nothing to go on with.")
    return run


def _no_backup(run: "Run") -> str:
    begun = "without --init" if run.init is None else f"with --init, the run {run.init}"
    return f"{run.path} has no backup yet; begin it again {begun}."


def _check_baseline(preset: Preset, system: str, num_replicas: int) -> None:
    if num_replicas > 1:
        raise ConfigError(f"{system} trains on one device; use --strategy single.")
    if preset.train.mixed_precision != "float32":
        raise ConfigError(f"{system} trains in float32; leave out --mixed-precision {preset.train.mixed_precision}.")
    if preset.train.early_stopping:
        raise ConfigError(f"{system} has no validation ELBO to stop by; leave out --early-stopping.")


def _check_mask_training(preset: Preset, *, begun: bool) -> None:
    if not begun:
        raise ConfigError("a mask network learns what a finished run leaves to it: begin with one, --init RUN.")
    if preset.train.remix_mask_epoch:
        raise ConfigError("a mask network learns from masked remixed sources alone; set train.remix_mask_start=0.")
    if preset.train.early_stopping:
        raise ConfigError("a mask network does not change the validation ELBO; leave out --early-stopping.")


def _build(preset: Preset, system: str, model_class: "type[MultiSourceVAE] | None") -> "keras.Model":
    from vae_bss_tf import baselines
    from vae_bss_tf.model import MultiSourceVAE

    if system in BASELINES:
        return baselines.build(system, preset.model, seed=preset.train.seed)
    return (model_class or MultiSourceVAE).for_training(
        preset.model, preset.train, preset.audio, dtype=preset.train.mixed_precision
    )


def _check_disk(model: "keras.Model", path: Path, *, new: bool) -> None:
    needed = _COPIES_ON_DISK * 4 * model.count_params()
    free = shutil.disk_usage(path).free
    if free < needed:
        if new:
            shutil.rmtree(path)
        raise DataError(
            f"no space left on the disk of {path}: a training of this model needs {needed / 1e6:.0f} MB, "
            f"{free / 1e6:.0f} MB are free. Free some, or choose another --output."
        )


def _check_trained(run: "Run", rows: list[dict[str, float]]) -> None:
    kept = run.system in BASELINES or (run.path / "model.keras").exists()
    if not rows or not math.isfinite(rows[-1]["loss"]) or not kept:
        raise DataError(
            f"the loss is not finite any more in epoch {len(rows)}; lower --learning-rate and train again with --force."
        )


def _judge(
    run: "Run", bank: "SourceBank", progress: Any, seconds: float, epochs: int, epochs_done: int, device: str
) -> None:
    from training import figures
    from training.scores import mean_scores

    model = run.model()
    num_mixed = [run.preset.data.max_mixed]
    truth = pipeline.evaluation_data(run.preset, bank, num_mixtures=_SCORED, num_mixed=num_mixed)
    if run.system in BASELINES:
        sources = model.separate(truth.mixtures)
        scored = {run.system: sources}
    else:
        outputs = model.predict({"mixture": truth.mixtures}, batch_size=_SCORED // 4, verbose=0)
        sources = outputs["sources"]
        scored = {"vae": outputs["estimates"], "vaem": sources}
    shown = slice(0, _PICTURED)
    figures.save(
        figures.separation(
            truth.mixtures[shown], sources[shown], truth.sources[shown], audio=run.preset.audio
        ),
        run.path / "separation.png",
    )
    metrics = {
        "seed": run.preset.train.seed,
        "device": device,
        "seconds": round(seconds, 1),
        "epochs": epochs,
        "epochs_before_resume": epochs_done,
        "mixtures_per_second": round(progress.mixtures_per_second),
        "parameters": _num_parameters(model),
        "test": {"mixtures": _SCORED, "num_mixed": num_mixed},
    }
    if run.preset.model.num_sources >= run.preset.data.max_mixed:
        metrics["test"].update({name: mean_scores(estimates, truth, name) for name, estimates in scored.items()})
    write_json(run.path / "metrics.json", metrics)


def _num_parameters(model: "keras.Model") -> int:
    from vae_bss_tf.model import MultiSourceVAE

    if isinstance(model, MultiSourceVAE):
        return model.num_parameters
    return sum(variable.shape.num_elements() for variable in model.trainable_variables)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: Its words; those of the process by default.

    Returns:
        The exit code.
    """
    options = _parser().parse_args(arguments)
    keep_freed_memory()
    return run_command(lambda: _command(options))


def _command(options: argparse.Namespace) -> None:
    preset_name, preset = resolve(options)
    if options.dry_run:
        print(json.dumps(preset.to_dict(), indent=2))
        return
    output = options.output or stages.default_output(preset_name, preset, options.system)
    init, resume = options.init, options.resume
    if preset_name in BEGUN_FROM and options.system == "vae" and init is None:
        init, resume = _train_earlier(preset_name, preset, output, options)
    run = train(
        preset,
        output=output,
        data_dir=options.data_dir,
        system=options.system,
        strategy=options.strategy,
        resume=resume,
        init=init,
        force=options.force,
        quiet=options.quiet,
    )
    _report(run)
    print(f"pictures: {run.path / 'separation.png'}, {run.path / 'history.png'}")
    where = f" --data-dir {options.data_dir}" if options.data_dir else ""
    print(f"next: python -m training.evaluate --run {run.path}{where}")


def _train_earlier(
    name: str, preset: Preset, output: Path, options: argparse.Namespace
) -> tuple[Path | None, str | None]:
    """Trains what a preset goes on from, and returns what its own training takes as `init` and `resume`."""
    from training import backup
    from training.run import Run

    if options.resume and backup.has_state(output / "backup"):
        return None, options.resume
    if _complete(preset, "vae").model.mask_channels:
        _check_mask_training(preset, begun=True)
    init, earlier = stages.plan(name, preset, output)
    resume, last = options.resume, earlier[-1].path if earlier else init
    if (output / "config.json").is_file():
        if resume is None:
            Run.check_new(output, force=options.force)
        elif (run := Run.load(output)).init != (last and last.name):
            raise CheckpointError(_no_backup(run))
    else:
        Run.check_new(output, force=False)
        begun = init is not None or any(stage.begun for stage in earlier)
        if resume is not None and not (begun and resume == backup.LATEST):
            raise CheckpointError(f"{output} is no run folder; leave out --resume to train it.")
        resume = None  # what was killed comes before it
    for stage in earlier:
        print(f"first a run of {stage.name}: {stage.path}, {'gone on with' if stage.begun else 'trained'}", flush=True)
        run = train(
            stage.preset,
            output=stage.path,
            data_dir=options.data_dir,
            strategy=options.strategy,
            resume="latest" if stage.begun else None,
            init=init,
            quiet=options.quiet,
        )
        _report(run)
        init = stage.path
    return init, resume


def _report(run: "Run") -> None:
    for name, scores in run.metrics["test"].items():
        if isinstance(scores, dict):
            print(
                f"{name.upper()} on {run.metrics['test']['mixtures']} test mixtures: SI-SDR {scores['si_sdr']:.2f} dB, "
                f"PSNR {scores['psnr']:.2f} dB (sources at full scale), {scores['psnr_halved']:.2f} dB (at half)"
            )
    print(f"{run.metrics['seconds']:.0f} s, {run.metrics['mixtures_per_second']:,} mixtures/s", flush=True)


def resolve(options: argparse.Namespace) -> tuple[str, Preset]:
    """Makes the settings from a preset and the command's options.

    Args:
        options: As the command's parser gives them.

    Returns:
        The preset's name and the resolved settings.

    Raises:
        ConfigError: A name is unknown or a value is out of its range.
    """
    if options.dataset is not None:
        check_choice("data set", options.dataset, [*DATASETS, *AUDIO_DATASETS])
    name = options.preset or options.dataset or "digits"
    parts = get_preset(name).to_dict()
    flags = {
        "data": {"dataset": options.dataset, "num_mixed": options.num_mixed},
        "model": {"num_sources": options.num_sources},
        "train": {
            "epochs": options.epochs,
            "batch_size": options.batch_size,
            "learning_rate": options.learning_rate,
            "kl_schedule": options.kl_schedule,
            "kl_weight": options.kl_weight,
            "mixed_precision": options.mixed_precision,
            "early_stopping": options.early_stopping,
            "seed": options.seed,
            "jit_compile": options.jit_compile,
        },
    }
    for part, values in flags.items():
        parts[part].update({field: value for field, value in values.items() if value is not None})
    for setting in options.set:
        part, field, value = _parse_setting(setting)
        check_choice("part of the settings", part, parts)
        check_choice(f"{part} setting", field, parts[part])
        parts[part][field] = value
    return name, Preset.from_dict(parts)


def _parse_setting(setting: str) -> tuple[str, str, Any]:
    path, equals, text = setting.partition("=")
    part, dot, field = path.partition(".")
    if not (equals and dot):
        raise ConfigError(f"--set {setting!r} is not of the form PART.FIELD=VALUE, such as model.latent_dim=10.")
    try:
        return part, field, json.loads(text)
    except ValueError:
        return part, field, text


def _counts(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.fit",
        description="Trains a separator from mixtures alone; by default on the digits that ship with scikit-learn.",
        epilog="example: python -m training.fit --dataset mnist --data-dir DIR --epochs 24",
    )
    parser.add_argument("--dataset", help=f"what is mixed: {', '.join([*DATASETS, *AUDIO_DATASETS])} (default: digits)")
    parser.add_argument("--preset", help=f"settings to start from: {', '.join(PRESETS)} (default: the data set's own)")
    parser.add_argument("--data-dir", type=Path, help="folder of the data set's files; without it they are fetched")
    parser.add_argument("--system", default="vae", choices=SYSTEMS, help="what to train (default: %(default)s)")
    parser.add_argument("--num-sources", type=int, metavar="K", help="sources that the model emits")
    parser.add_argument(
        "--num-mixed", type=_counts, metavar="M[,M...]", help="sources in a mixture, 1 to 4, or several counts to mix"
    )
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch-size", type=int, help="mixtures a step, over all devices")
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--kl-schedule", help="course of the KL weight: constant, linear, cyclical, decay")
    parser.add_argument("--kl-weight", type=float, help="KL weight (beta) that the course starts from or rises to")
    parser.add_argument("--mixed-precision", help="float32, mixed_bfloat16 or mixed_float16")
    parser.add_argument("--early-stopping", type=int, metavar="EPOCHS", help="stop after so many epochs without gain")
    parser.add_argument("--jit-compile", action=argparse.BooleanOptionalAction, default=None, help="compile by XLA")
    parser.add_argument("--seed", type=int)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PART.FIELD=VALUE",
        help="any other setting, e.g. model.latent_dim=10",
    )
    parser.add_argument("--strategy", default="auto", help="auto, mirrored or single (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="run folder (default: runs/PRESET-kK-seedSEED)")
    parser.add_argument(
        "--resume", nargs="?", const="latest", metavar="BACKUP", help="go on with a stopped run, from its latest backup"
    )
    parser.add_argument(
        "--init",
        type=Path,
        metavar="RUN",
        help="begin with the weights of a finished run, of as many sources or fewer (default: where the preset goes on "
        "from another, that one's run beside this, trained first)",
    )
    parser.add_argument("--force", action="store_true", help="delete an earlier run in the run folder first")
    parser.add_argument("--quiet", action="store_true", help="one plain line an epoch instead of a progress bar")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved settings and stop")
    return parser


if __name__ == "__main__":
    sys.exit(main())
