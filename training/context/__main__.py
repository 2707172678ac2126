"""Trains the context network of a model of recordings: `python -m training.context --run RUN --data-dir takes`."""

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.memory import keep_freed_memory
from vae_bss_tf.arguments import Parser, command, given, path
from vae_bss_tf.audio.context import FOLDER, ContextConfig
from vae_bss_tf.checks import check_budget
from vae_bss_tf.errors import CheckpointError, ConfigError, OutputExistsError
from vae_bss_tf.settings import first_difference
from vae_bss_tf.startup import import_tensorflow

if TYPE_CHECKING:
    from training.run import Run
    from vae_bss_tf.config import AudioConfig
    from vae_bss_tf.model import MultiSourceVAE

_HELD_OUT = 48  # remixes, at most


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m training.context",
        description="Trains a network that corrects what a model of short windows separates, by what sounds before and "
        "after: it sees 512 frames, twelve seconds with the presets. It learns from recordings of mixtures alone: "
        "sources that the model found in them are mixed anew and separated again. The network stands in the run's "
        "folder, where separation finds it.",
        epilog="example: python -m training.context --run runs/mixtures-k2-seed0 --data-dir takes --minutes 30",
    )
    parser.add_argument("--run", type=path, required=True, help="finished run of a model of sound")
    parser.add_argument("--data-dir", type=path, required=True, metavar="DIR", help="folder of recordings that are "
                        "mixtures, such as the run was trained on")  # fmt: skip
    parser.add_argument("--teacher", type=path, metavar="MODEL", help="run or export, such as one with a context "
                        "network, that finds the sources in the recordings (default: the run itself)")  # fmt: skip
    parser.add_argument("--epochs", type=int, help="epochs of 100 steps (default: 15)")
    parser.add_argument("--minutes", type=float, help="plan the epochs to end in as many minutes")
    parser.add_argument("--remixes", type=int, help="new mixtures to learn from (default: 1200)")
    parser.add_argument("--batch-size", type=int, help="mixtures a step (default: 4)")
    parser.add_argument("--learning-rate", type=float, help="Adam's at the beginning (default: 2e-3)")
    parser.add_argument("--seed", type=int, help="seed of weights and mixtures (default: 0)")
    parser.add_argument("--resume", action="store_true", help="resume the training after its last epoch")
    parser.add_argument("--force", action="store_true", help="replace an earlier context network of the run")
    return parser


def _command(options: argparse.Namespace) -> None:
    started = time.perf_counter()
    check_budget(options.epochs, options.minutes)
    keep_freed_memory()
    import_tensorflow()
    from training.run import Run, exclusive
    from vae_bss_tf.runtime import MANIFEST

    run = Run.load(options.run)
    if (run.path / MANIFEST).exists():
        raise OutputExistsError(f"{run.path} is an export, which no training changes; give the run it was made of.")
    if options.teacher is not None and run.path.resolve() in (p := options.teacher.resolve(), *p.parents):
        raise ConfigError(f"{options.teacher} is what is trained; copy the run, and give the copy as --teacher.")
    with exclusive(run.path):
        metrics = _train(options, run, started)
    print(
        f"{run.path / FOLDER}: {metrics['val_sdr']:.2f} dB on remixes of held-out recordings, "
        f"{metrics['val_sdr_before']:.2f} dB without it\n"
        f"next: python -m vae_bss_tf.separate RECORDING --model {run.path} --output stems"
    )


def _train(options: argparse.Namespace, run: "Run", started: float) -> dict[str, Any]:
    from training.context import remixes, trainer
    from vae_bss_tf.audio.separator import Separator

    model, audio = _model(run)
    folder = run.path / FOLDER
    settings = given(options, ("epochs", "remixes", "batch_size", "learning_rate", "seed"))
    config, training = ContextConfig(), trainer.ContextTraining(**settings)
    teacher = None if options.teacher is None else str(options.teacher)
    if options.resume:
        wanted = teacher
        trainer.check_resumable(folder)
        config, training, teacher = trainer.settings_of(folder)
        stored = {**training.to_dict(), "teacher": teacher}
        _check_same(options, {**stored, **settings, **({} if wanted is None else {"teacher": wanted})}, stored)
    elif folder.exists() and not options.force:
        raise OutputExistsError(f"{folder} exists; resume its training by --resume, or replace it by --force.")
    if not config.fits(audio):
        raise ConfigError(f"the model sees {audio.num_bins} bins; a context network needs a multiple of "
                          f"{config.divisor}, at most half its FFT of {audio.n_fft}.")  # fmt: skip
    separator = Separator(model, audio)
    finder = separator if teacher is None else Separator.load(teacher)
    if (finder.audio, finder.num_sources) != (audio, separator.num_sources):
        raise ConfigError(f"{teacher} has other audio settings than {run.path}, or another number of sources.")
    parts = []
    for split, number in (("train", training.remixes), ("validation", min(_HELD_OUT, training.remixes))):
        excerpts = remixes.separated(options.data_dir, Path(teacher or run.path), finder, split)
        parts.append(remixes.remixed(excerpts, number, training.seed, run.path, separator))
    network = trainer.ContextTrainer(config, training, audio, *parts)
    if options.minutes is not None and not options.resume:
        training = network.within(max(0.1, options.minutes - (time.perf_counter() - started) / 60))
    if not options.resume:
        trainer.create(folder, config, training, audio, teacher)
    print(f"network: {network.num_parameters:,} parameters\nwriting to: {folder}", flush=True)
    return network.train(folder, report=lambda line: print(line, flush=True))


def _model(run: "Run") -> "tuple[MultiSourceVAE, AudioConfig]":
    """The model that is corrected, and its audio settings."""
    from vae_bss_tf.audio import order
    from vae_bss_tf.model import MultiSourceVAE

    if run.preset.audio is None:
        raise ConfigError(f"{run.path} is no model of sound; pictures have no context.")
    if not run.metrics:
        raise CheckpointError(f"{run.path} is not finished; finish it with --resume.")
    if not 2 <= run.preset.model.num_sources <= order.MAX_SOURCES:
        raise ConfigError(f"{run.path} has {run.preset.model.num_sources} sources; a context network corrects 2 to "
                          f"{order.MAX_SOURCES}.")  # fmt: skip
    model = run.model()
    if not isinstance(model, MultiSourceVAE):
        raise ConfigError(f"{run.path} holds a {run.system}; a context network corrects a VAE or an AE.")
    return model, run.preset.audio


def _check_same(options: argparse.Namespace, wanted: dict[str, Any], stored: dict[str, Any]) -> None:
    """Refuses to resume a training with other settings than it began with; what is left out is as before."""
    if options.force:
        raise ConfigError("--resume goes on with what --force deletes; give one of them.")
    if wanted != stored:
        raise CheckpointError(
            f"the training was begun with other settings ({first_difference(stored, wanted)}); give the same command "
            "again with --resume, or begin anew by --force."
        )


main = command(_parser, _command)


if __name__ == "__main__":
    sys.exit(main())
