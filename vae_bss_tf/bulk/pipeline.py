"""The pipeline: names of files in, separated files out, and a report of what came of each."""

import collections
import dataclasses
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.ml.inference.base import ModelHandler, RunInference

from vae_bss_tf.bulk import storage
from vae_bss_tf.bulk.work import (
    FAILED,
    FINISHED,
    SEPARATED,
    Outcome,
    PictureWorker,
    RecordingWorker,
    Settings,
    Task,
    Worker,
)

FAILURES, SUMMARY = "failures.jsonl", "summary.json"


@dataclasses.dataclass(frozen=True)
class Job:
    """What is to be separated.

    Attributes:
        inputs: Files, folders and patterns, as `storage.find` takes them.
        suffixes: What the files in folders end in.
        pictures: Whether the files are pictures; recordings otherwise.
        settings: What the workers need to know.
        refused: Why a file is not to be separated, by its path.
    """

    inputs: tuple[str, ...]
    suffixes: tuple[str, ...]
    pictures: bool
    settings: Settings
    refused: dict[str, str] = dataclasses.field(default_factory=dict)


class SeparationHandler(ModelHandler[Task, Outcome, Worker]):
    """Runs our separators under Beam's RunInference, which loads one for each process and hands it file after file.

    A batch is one file, which fills batches of the model by itself; the pipeline makes these batches, since Beam's
    own batching gives the last one out when a bundle ends, and the runner of Dask loses it there.

    Args:
        job: The job.
    """

    def __init__(self, job: Job) -> None:
        super().__init__()
        self._job = job

    def load_model(self) -> Worker:
        """Loads the separator."""
        return (PictureWorker if self._job.pictures else RecordingWorker)(self._job.settings)

    def run_inference(
        self, batch: Sequence[Task], model: Worker, inference_args: dict[str, Any] | None = None
    ) -> Iterable[Outcome]:
        """Separates the files of a batch."""
        return [model.run(task) for task in batch]

    def should_skip_batching(self) -> bool:
        """Says that what comes in are batches already."""
        return True

    def get_metrics_namespace(self) -> str:
        """Names the metrics that RunInference keeps: files, and the times of loading and separating."""
        return "vae_bss_tf.bulk"


def build(pipeline: beam.Pipeline, job: Job) -> None:
    """Adds the job to a pipeline.

    Each file is separated into the output folder. When all are done, `failures.jsonl` there holds a line for each that
    failed and `summary.json` the counts.

    Args:
        pipeline: An empty pipeline.
        job: The job.
    """
    root, output = storage.root(job.inputs), job.settings.output
    # One line without side inputs or second outputs, which not every runner has. Places are bytes between the steps:
    # Beam's coders refuse a text that is no UTF-8, as the name of a file may be.
    (
        pipeline
        | "Inputs" >> beam.Create(map(os.fsencode, job.inputs))
        | "Find" >> beam.FlatMap(_find, job.suffixes, output, root)
        | "Group" >> beam.GroupByKey()  # which spreads the files over the workers
        | "Choose" >> beam.FlatMap(_batches, job.refused)
        | "Separate" >> RunInference(SeparationHandler(job))
        # The one key is a text: that of CombineGlobally, None, has another hash in each process, and Dask groups by it.
        | "Key" >> beam.WithKeys("all")
        | "Count" >> beam.CombinePerKey(_Report())
        | "Totals" >> beam.Values()
        | "Write" >> beam.Map(_write, output, time.time())
    )


def _find(place: bytes, suffixes: tuple[str, ...], output: str, root: str) -> Iterator[tuple[bytes, bytes]]:
    """Finds files as `storage.find` does; yields the name of a file's task, and its place."""
    for path in storage.find(os.fsdecode(place), suffixes, output):
        yield os.fsencode(os.path.splitext(path.removeprefix(root))[0]), os.fsencode(path)


def _batches(group: tuple[bytes, Iterable[bytes]], refused: dict[str, str]) -> Iterator[list[Task]]:
    """Makes batches of one file; of the files of one name all but the first are refused."""
    name = os.fsdecode(group[0])
    first, *others = sorted(map(os.fsdecode, set(group[1])))
    yield [Task(first, name, refused.get(first, ""))]
    for path in others:
        yield [Task(path, name, refused=f"{path} would have outputs of the same names as {first}; rename it.")]


@dataclasses.dataclass
class _Totals:
    """What came of files so far: how many by status, seconds of sound and of work, and those that failed."""

    files: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    sound: float = 0.0
    work: float = 0.0
    failures: list[Outcome] = dataclasses.field(default_factory=list)


class _Report(beam.CombineFn):
    """Adds up outcomes."""

    def create_accumulator(self) -> _Totals:
        return _Totals()

    def add_input(self, mutable_accumulator: _Totals, element: Outcome) -> _Totals:
        failures = [element] if element.status == FAILED else []
        one = _Totals(collections.Counter([element.status]), element.sound, element.work, failures)
        return self.merge_accumulators([mutable_accumulator, one])

    def merge_accumulators(self, accumulators: Iterable[_Totals]) -> _Totals:
        merged, *others = accumulators
        for totals in others:
            merged.files += totals.files
            merged.sound += totals.sound
            merged.work += totals.work
            merged.failures += totals.failures
        return merged

    def extract_output(self, accumulator: _Totals) -> _Totals:
        return accumulator


def _write(totals: _Totals, output: str, started: float) -> None:
    failures = sorted(totals.failures, key=lambda failure: failure.path)
    lines = [json.dumps({"path": failure.path, "error": failure.error}) + "\n" for failure in failures]
    storage.write_text(f"{output}/{FAILURES}", "".join(lines))
    seconds = time.time() - started
    summary = {
        "files": totals.files.total(),
        **{status: totals.files[status] for status in (SEPARATED, FINISHED, FAILED)},
        "hours_of_sound": totals.sound / 3600,
        "seconds": seconds,
        "seconds_of_work": totals.work,
        "real_time_factor": totals.sound / seconds,
    }
    storage.write_text(f"{output}/{SUMMARY}", json.dumps(summary, indent=2) + "\n")
