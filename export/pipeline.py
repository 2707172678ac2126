"""From a run to a proven export: everything is written beside its place and moved there when all of it is right."""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from export.card import card
from export.formats import Format, check_libraries, get_formats
from export.gate import int8_weights as weights
from export.gate.parity import Reference, check, extreme_mixtures, extreme_waveforms
from export.gate.workers import converters
from export.manifest import COURSE, Export, manifest
from export.target import check_target
from export.writers import onnx, saved_model, tflite
from training import figures
from training.context.trainer import scores_of
from training.history import read_history
from training.run import OF_AN_EXPORT, WEIGHTS, Run, unchanged
from vae_bss_tf.audio import spectrogram
from vae_bss_tf.audio.context import FOLDER, OF_A_CONTEXT
from vae_bss_tf.config import Preset
from vae_bss_tf.datasets import DATASETS, SourceBank, pipeline
from vae_bss_tf.datasets.image_mixtures import EvaluationSet
from vae_bss_tf.datasets.sound_mixtures import AudioEvaluationSet
from vae_bss_tf.errors import CheckpointError
from vae_bss_tf.files import replacing_folder, write_json, write_text
from vae_bss_tf.model import MultiSourceVAE
from vae_bss_tf.runtime import INPUT, MANIFEST
from vae_bss_tf.saved import save_weights

NUM_HELD_OUT = 500
NUM_CALIBRATION = 256


def export_run(
    run_path: Path,
    target: Path,
    *,
    names: Sequence[str] | None = None,
    data_dir: Path | None = None,
    dynamic_batch: bool = False,
    force: bool = False,
    command: str = "",
    data_licence: str | None = None,
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Exports a run, and proves each file equal to the model before any of it is in its place.

    Args:
        run_path: The run folder.
        target: The folder to make.
        names: Keys of `FORMATS`; None takes all that the model has.
        data_dir: Folder of the data set's files, as `load_bank` takes it.
        dynamic_batch: Whether the TFLite files take any number of mixtures; else one.
        force: Whether an earlier export in `target` is replaced.
        command: The command to write down as the one that made the export.
        data_licence: The licence of the training data, for the card; None takes the data set's where it is known.
        report: Told of each step in one line.

    Returns:
        The manifest.

    Raises:
        CheckpointError: The run is missing, damaged, unfinished, has no weights, or is no multi-source VAE.
        ConfigError: A format is unknown, or the folder cannot be made.
        DataError: The data set cannot be read.
        OutputExistsError: `target` exists and may not be replaced, or the run is being trained.
        ExportError: A file differs from the model. Nothing is left behind and an earlier export stays.
        ModuleNotFoundError: A library that a format needs is not installed.
    """
    check_target(target, live=False, force=force)
    run = Run.load(run_path)
    with unchanged(run.path):
        if not run.metrics:
            raise CheckpointError(f"{run_path} is not finished: it has no metrics.json; finish it with --resume.")
        if run.preset.audio is not None and (run.path / FOLDER).is_dir():
            scores_of(run.path / FOLDER, run.preset.audio)  # one that is damaged or not finished is told at once
        wanted = get_formats(names, audio=run.preset.audio is not None)
        check_libraries(fmt.name for fmt in wanted)
        with replacing_folder(target) as staging, tempfile.TemporaryDirectory(dir=staging) as work:
            report(f"loading {run_path}")
            figures.save(figures.history(read_history(run.path / "history.csv")), staging / COURSE)
            model = float32_model(run)
            banks = pipeline.load_banks(run.preset, data_dir, ("train", "test"))
            references = _references(run, model, banks["test"])
            calibration = pipeline.evaluation_data(run.preset, banks["train"], num_mixtures=NUM_CALIBRATION).mixtures
            report("writing " + ", ".join(f.path for f in wanted))
            _write(model, run.preset, wanted, staging, Path(work), calibration, dynamic_batch)
            reports = {}
            for fmt in wanted:
                reports[fmt.name] = check(fmt, staging / fmt.path, references[fmt.waveform], Path(work))
                report(_passed(fmt, reports[fmt.name]))
            save_weights(model, staging / WEIGHTS)
            for name in OF_AN_EXPORT:
                if (run.path / name).is_file():
                    shutil.copyfile(run.path / name, staging / name)
            if (run.path / FOLDER).is_dir():
                (staging / FOLDER).mkdir()
                for name in OF_A_CONTEXT:
                    shutil.copyfile(run.path / FOLDER / name, staging / FOLDER / name)
            licence = data_licence or DATASETS[run.preset.data.dataset].licence
            export = Export(target.name, command, run, references[False], reports, dynamic_batch, licence)
            described = manifest(export, staging)
            write_json(staging / MANIFEST, described)
            write_text(staging / "README.md", card(export, described))
    return described


def float32_model(run: Run) -> MultiSourceVAE:
    """The run's model in float32 throughout, whatever precision it was trained in."""
    trained = run.model()
    if not isinstance(trained, MultiSourceVAE):
        raise CheckpointError(f"{run.path} holds a {run.system}; only the multi-source VAE and AE are exported.")
    model = MultiSourceVAE(trained.config)
    model.set_weights(trained.get_weights())
    return model


def _references(run: Run, model: MultiSourceVAE, bank: SourceBank) -> dict[bool, Reference]:
    """What the model says, and, under True, what it says of waveforms where it is one of audio."""
    number = pipeline.num_distinct(run.preset, bank, NUM_HELD_OUT)
    held_out = pipeline.evaluation_data(run.preset, bank, num_mixtures=number)

    def separate(mixtures: Any) -> dict[str, Any]:
        return model.predict({INPUT: mixtures}, verbose=0)

    kernels = weights.kernels(model)
    extreme = extreme_mixtures(run.preset.model.input_shape)
    references = {False: Reference.of(separate, held_out, extreme, kernels)}
    audio = run.preset.audio
    if audio is not None and isinstance(held_out, AudioEvaluationSet):

        def separate_waveforms(waveforms: Any) -> dict[str, Any]:
            def sources_of(features: Any) -> Any:
                return separate(features)["sources"]

            # The transform as the graph has it: a signal of none of the model's bins is left with its rounding.
            return {"sources": spectrogram.separate_waveforms(waveforms, sources_of, audio, fft=False)}

        waveforms = EvaluationSet(
            held_out.waveforms, held_out.source_waveforms, held_out.counts, held_out.labels, held_out.gain
        )
        extreme = extreme_waveforms(audio.num_samples)
        references[True] = Reference.of(separate_waveforms, waveforms, extreme, kernels)
    return references


def _write(
    model: MultiSourceVAE,
    preset: Preset,
    wanted: list[Format],
    staging: Path,
    work: Path,
    calibration: Any,
    dynamic_batch: bool,
) -> None:
    with converters() as pool:
        jobs = []
        for waveform in (False, True):
            paths = {f.name: staging / f.path for f in wanted if f.waveform == waveform}
            if not paths:
                continue
            write = partial(saved_model.write, model, preset=preset)
            if waveform and preset.audio is not None:
                write = partial(saved_model.write_waveform, model, preset.audio)
            kinds = {kind: _of_kind(kind, paths) for kind in ("saved_model", "tflite", "onnx")}
            any_batch = next(iter(kinds["saved_model"].values()), work / f"any_batch_{waveform}")
            write(any_batch)
            if kinds["tflite"]:
                source = any_batch
                if not dynamic_batch:
                    source = work / f"one_mixture_{waveform}"
                    write(source, batch_size=1)
                jobs.append(pool.submit(tflite.convert, source, kinds["tflite"], calibration))
            if kinds["onnx"]:
                jobs.append(pool.submit(onnx.convert, any_batch, kinds["onnx"], work))
        for job in jobs:
            job.result()


def _of_kind(kind: str, paths: dict[str, Path]) -> dict[str, Path]:
    return {name: path for name, path in paths.items() if name.startswith(kind)}


def _passed(fmt: Format, report: dict[str, Any]) -> str:
    return (
        f"{fmt.name}: largest error of the sources {report['max_abs_error']['sources']:.1e}, "
        f"changes SI-SDR by {report['changes_db']['si_sdr']:+.3f} dB, {report['latency_ms']:.2f} ms a mixture"
    )
