"""The command `python -m vae_bss_tf.bulk`."""

import argparse
import contextlib
import dataclasses
import functools
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vae_bss_tf import audio, pictures
from vae_bss_tf.arguments import Parser, parsed, path
from vae_bss_tf.bulk.losses import Losses
from vae_bss_tf.errors import (
    EXIT_INTERRUPTED,
    EXIT_USER_ERROR,
    ConfigError,
    DataError,
    OutputExistsError,
    run_command,
)
from vae_bss_tf.files import held, parse_json

JOB = "job.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: Its words; those of the process by default.

    Returns:
        The exit code.
    """
    parser = _parser()
    words, flags = _sorted(sys.argv[1:] if arguments is None else arguments, parser)
    options = parsed(parser, words)
    again = None if arguments is not None else [sys.executable, "-m", "vae_bss_tf.bulk", *sys.argv[1:]]
    return run_command(lambda: _command(options, flags, again))


def _sorted(words: Sequence[str], parser: argparse.ArgumentParser) -> tuple[list[str], list[str]]:
    """Tells this command's words from Beam's: options that the parser does not know, each with its value."""
    ours: list[str] = []
    flags: list[str] = []
    taken = ours
    for word in words:
        if word.startswith("-"):
            known = word.partition("=")[0] in parser._option_string_actions
            taken = ours if known or not word.startswith("--") else flags
        taken.append(word)
        if taken is flags and not word.startswith("--"):
            taken = ours
    return ours, flags


def _command(options: argparse.Namespace, flags: list[str], again: list[str] | None) -> None:
    logging.disable()  # Beam logs its own business, with tracebacks; errors are raised as well
    # It takes seconds to import: --help comes without it.
    from vae_bss_tf.bulk import collisions, pipeline, runners, storage
    from vae_bss_tf.bulk.work import Settings, fingerprint, separates_pictures

    workers = len(os.sched_getaffinity(0)) if options.workers is None else options.workers
    if workers < 1:
        raise ConfigError(f"--workers is {workers}; give at least 1.")
    output = storage.absolute(options.output).rstrip("/")
    model = storage.absolute(options.model).rstrip("/")
    inputs = tuple(map(storage.absolute, options.input))
    of_images = separates_pictures(model, inputs, output)
    if of_images and (options.format or options.allow_truncated):
        raise ConfigError("--format and --allow-truncated are for recordings, and the model is one of images.")
    suffixes = pictures.SUFFIXES if of_images else audio.SUFFIXES
    found = _found(options, inputs, suffixes, output)
    refused = collisions.refused(found) if of_images else {}
    settings = Settings(model, output, options.format, options.allow_truncated)
    job = pipeline.Job(inputs, suffixes, of_images, settings, refused)
    if storage.is_local(output):
        os.makedirs(output, exist_ok=True)
    with _alone(output):
        _claim(output, {"root": storage.root(inputs), "model": fingerprint(model), "format": options.format})
        print(f"model: {options.model}\nwriting to: {options.output}", flush=True)
        losses = None
        if storage.is_local(output) and runners.is_local(flags):
            losses = Losses(Path(output))
            settings = dataclasses.replace(settings, marks=str(losses.marks))
            job = dataclasses.replace(job, settings=settings, refused=refused | losses.begin())
        lost = functools.partial(_lost, losses=losses, again=again)
        with contextlib.nullcontext() if losses is None else losses.unless_interrupted():
            runners.run(functools.partial(pipeline.build, job=job), flags, workers, lost)
        if losses is not None:
            losses.end()
        _tell(json.loads(storage.read_text(f"{output}/{pipeline.SUMMARY}")), options.output, of_images)


def _found(options: argparse.Namespace, inputs: Sequence[str], suffixes: Sequence[str], output: str) -> set[str]:
    """The files to separate, of which every input must name some."""
    from vae_bss_tf.bulk import storage

    found: set[str] = set()
    for given, place in zip(options.input, inputs, strict=True):
        listed = storage.find(place, suffixes, output)
        if not listed:
            if f"{place.rstrip('/')}/".startswith(f"{output}/"):
                raise OutputExistsError(f"{given} lies in {options.output}; choose another --output.")
            raise DataError(f"no file matches {given}; check the name, and put a pattern in quotation marks.")
        found.update(listed)
    return found


def _lost(reason: str, losses: Losses | None, again: list[str] | None) -> None:
    """Starts the command again where it is known by which files a worker was lost; ends the process elsewhere."""
    if losses is not None and losses.was_interrupted():
        print("interrupted", file=sys.stderr, flush=True)
        os._exit(EXIT_INTERRUPTED)
    paths = [] if losses is None else losses.collect()
    if paths and again is not None:
        print(f"warning: a worker was lost ({reason}) while it separated {', '.join(paths)}; starting again.",
              file=sys.stderr, flush=True)  # fmt: skip
        os.execv(again[0], again)
    print(f"error: a worker was lost ({reason}); run the same command again to go on.", file=sys.stderr, flush=True)
    os._exit(EXIT_USER_ERROR)


@contextlib.contextmanager
def _alone(output: str) -> Iterator[None]:
    """Keeps other jobs on this machine away from a folder of this machine."""
    from vae_bss_tf.bulk import storage

    if not storage.is_local(output):
        yield
        return
    try:
        with held(Path(output), wait=False):
            yield
    except BlockingIOError as error:
        raise OutputExistsError(
            f"another job is writing to {output}; wait for it, or choose another --output."
        ) from error


def _claim(output: str, job: dict[str, str | None]) -> None:
    """Makes sure that what is finished in a folder was finished by this very job."""
    from vae_bss_tf.bulk import storage

    place = f"{output}/{JOB}"
    if not storage.exists(place):
        if not storage.is_empty(output):
            raise OutputExistsError(f"{output} holds other files; choose another --output, or empty it.")
        storage.write_text(place, json.dumps(job, indent=2) + "\n")
        return
    try:
        earlier = parse_json(storage.read_text(place))
    except ValueError:
        earlier = None
    if not isinstance(earlier, dict):
        raise OutputExistsError(f"{place} is of no job of this command, or damaged; choose another --output.")
    for name, value in job.items():
        if earlier.get(name) != value:
            raise OutputExistsError(
                f"{output} is of a job with another {name} ({earlier.get(name)}, now {value}); choose another --output."
            )


def _tell(summary: dict[str, Any], output: str, of_images: bool) -> None:
    from vae_bss_tf.bulk.pipeline import FAILURES

    print("{files} files: {separated} separated, {finished} finished before, {failed} failed".format(**summary))
    if not of_images:
        print(
            "{hours_of_sound:.2f} h of sound in {seconds:.0f} s, real-time factor {real_time_factor:.1f}".format(
                **summary
            )
        )
    if summary["failed"] == summary["files"]:
        raise DataError(f"none of the files could be separated; {output}/{FAILURES} says why.")
    if summary["failed"]:
        print(f"what is wrong with each file that failed: {output}/{FAILURES}")
    print(f"next: {'look at' if of_images else 'listen to'} {output}")


def _place(text: str) -> str:
    return text if "://" in text else str(path(text)) + ("/" if text.endswith("/") else "")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m vae_bss_tf.bulk",
        allow_abbrev=False,
        description="Separates any number of recordings or pictures by an Apache Beam pipeline, on all cores of this "
        "machine or on a cluster. A file that cannot be separated costs a line in failures.jsonl, not the job. Run the "
        "same command again after an interruption: what is finished is skipped.",
        epilog="example: python -m vae_bss_tf.bulk --input 'takes/**/*.wav' --model saved_models/notes --output stems. "
        "Every other option is Beam's, such as --runner=FlinkRunner --flink_master=HOST:8081.",
    )
    parser.add_argument(
        "--input",
        required=True,
        nargs="+",
        type=_place,
        metavar="PATTERN",
        help="files, folders, or patterns in quotation marks, local or on a file system that Beam knows; **/ stands "
        "for any number of folders",
    )
    parser.add_argument(
        "--model",
        required=True,
        type=_place,
        help="run folder or exported model, also on Beam's file systems, or one on a server",
    )
    parser.add_argument(
        "--output",
        required=True,
        type=_place,
        help="folder to write to; files keep their path below the folder of all inputs",
    )
    parser.add_argument(
        "--format", choices=audio.FORMATS, help="format of the sound files (default: the recording's own)"
    )
    parser.add_argument(
        "--allow-truncated",
        action="store_true",
        help="separate what is there of a truncated WAV, AIFF or Ogg file",
    )
    parser.add_argument("--workers", type=int, help="processes on this machine (default: one for each core)")
    return parser
