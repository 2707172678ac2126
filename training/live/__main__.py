"""Trains a live separator: `python -m training.live --data-dir takes --teacher saved_models/duets`."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from training.memory import keep_freed_memory
from vae_bss_tf.arguments import Parser, command, given, path
from vae_bss_tf.checks import check_budget
from vae_bss_tf.errors import CheckpointError, ConfigError, DataError
from vae_bss_tf.live.config import LATENCIES, LiveConfig
from vae_bss_tf.settings import first_difference
from vae_bss_tf.startup import import_tensorflow

_OF_MODEL = ("latency_ms", "sample_rate", "channels")
_OF_TRAINING = ("epochs", "batch_size", "learning_rate", "seed")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m training.live",
        description="Trains a separator that answers while the sound comes, from recordings of mixtures alone: an "
        "offline model separates them, and the live one learns to separate new mixtures of what it found.",
        epilog="example: python -m training.live --data-dir takes --teacher saved_models/duets --latency 16",
    )
    parser.add_argument("--data-dir", action="append", type=path, metavar="DIR", help="folder of recordings that are "
                        "mixtures; may be given several times, each with a teacher of its own")  # fmt: skip
    parser.add_argument("--teacher", action="append", type=path, metavar="MODEL", help="run or export of the model "
                        "that separates them, offline or live")  # fmt: skip
    parser.add_argument(
        "--latency", dest="latency_ms", type=float, metavar="MS", help=f"one of {LATENCIES} (default: 16)"
    )
    parser.add_argument("--sample-rate", type=float, help="Hz that the model works at (default: 11025)")
    parser.add_argument("--channels", type=int, help="units of the hidden layers (default: 96)")
    parser.add_argument("--epochs", type=int, help="epochs of 100 steps (default: 60)")
    parser.add_argument("--minutes", type=float, help="plan the epochs to end in as many minutes")
    parser.add_argument("--batch-size", type=int, help="mixtures of 3 s a step (default: 16)")
    parser.add_argument("--learning-rate", type=float, help="Adam's at the beginning (default: 2e-3)")
    parser.add_argument("--seed", type=int, help="seed of weights, mixtures and noise (default: 0)")
    parser.add_argument("--init", type=path, metavar="RUN", help="finished run, of any latency, to begin with")
    parser.add_argument("--output", type=path, help="run folder (default: runs/live-LATENCYms-seedSEED)")
    parser.add_argument("--resume", action="store_true", help="resume the run in --output after its last epoch")
    parser.add_argument("--force", action="store_true", help="replace an earlier run in --output")
    return parser


def _command(options: argparse.Namespace) -> None:
    started = time.perf_counter()
    of_model, of_training = given(options, _OF_MODEL), given(options, _OF_TRAINING)
    config = LiveConfig(**of_model)
    output = options.output or Path(f"runs/live-{config.latency_ms:g}ms-seed{of_training.get('seed', 0)}")
    check_budget(options.epochs, options.minutes)
    keep_freed_memory()
    import_tensorflow()
    from training.live import stems, trainer
    from training.run import exclusive

    if options.resume:
        trainer.check_resumable(output)
        config, training, sources = trainer.settings_of(output)
        _check_same(options, output, of_model | of_training, {**config.to_dict(), **training.to_dict()}, sources)
    else:
        sources = _sources(options.data_dir, options.teacher)
        training = trainer.LiveTraining(**of_training)
        trainer.check_new(output, force=options.force)
    init = None if options.init is None or options.resume else trainer.load_model(options.init)
    train, held_out = (
        stems.Stems.joined(
            [stems.load(Path(s["data_dir"]), Path(s["teacher"]), split, config.sample_rate) for s in sources]
        )
        for split in ("train", "validation")
    )
    config = config.replace(num_sources=train.shape[0])
    if (found := len(set(train.recordings))) < config.num_sources:
        raise DataError(
            f"{found} recordings to train on are too few for {config.num_sources} sources, which are taken from "
            "different recordings; record more."
        )
    trained = trainer.LiveTrainer(config, training, train, held_out, init)
    if options.minutes is not None and not options.resume:
        training = trained.within(max(0.1, options.minutes - (time.perf_counter() - started) / 60))
    if not options.resume:
        trainer.create(output, config, training, sources, options.force)
    with exclusive(output):
        print(f"model: {trained.model.num_parameters:,} parameters, blocks of {config.hop_length} samples, latency "
              f"{2000 * config.hop_length / config.sample_rate:.1f} ms\nwriting to: {output}", flush=True)  # fmt: skip
        metrics = trained.train(output, report=lambda line: print(line, flush=True))
    print(f"{output}: {metrics['val_sdr']:.2f} dB against what the teacher finds in held-out recordings\n"
          f"next: python -m export.live --run {output} --to exported/live")  # fmt: skip


def _check_same(
    options: argparse.Namespace,
    output: Path,
    settings: dict[str, Any],
    stored: dict[str, Any],
    sources: list[dict[str, str]],
) -> None:
    """Refuses to resume a training with other settings than it began with; what is left out is as before."""
    if options.force:
        raise ConfigError("--resume goes on with what --force deletes; give one of them.")
    stored = {**stored, "learned_from": sources}
    wanted = stored | settings
    if options.data_dir or options.teacher:
        wanted["learned_from"] = _sources(options.data_dir, options.teacher)
    if wanted != stored:
        raise CheckpointError(
            f"{output} was trained with other settings ({first_difference(stored, wanted)}); give the same command "
            "again with --resume, or another --output."
        )


def _sources(data_dirs: list[Path] | None, teachers: list[Path] | None) -> list[dict[str, str]]:
    if not data_dirs or not teachers or len(data_dirs) != len(teachers):
        raise ConfigError("give --data-dir DIR and --teacher MODEL, as many of one as of the other.")
    return [{"data_dir": str(d), "teacher": str(t)} for d, t in zip(data_dirs, teachers, strict=True)]


main = command(_parser, _command)


if __name__ == "__main__":
    sys.exit(main())
