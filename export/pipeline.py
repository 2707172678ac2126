"""From a run to a proven export: everything is written beside its place and moved there when all of it is right."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from export import formats, onnx, tflite
from export.formats import FORMATS, Format
from export.manifest import Export, card, manifest
from export.parity import Reference, check
from export.processes import converters
from training.run import Run
from vae_bss_tf.datasets import load_bank
from vae_bss_tf.datasets.mixtures import evaluation_mixtures
from vae_bss_tf.errors import CheckpointError, ConfigError, OutputExistsError
from vae_bss_tf.files import replacing, write_json, write_text
from vae_bss_tf.runtime import MANIFEST

NUM_HELD_OUT = 500
NUM_CALIBRATION = 256


def export_run(
    run_path: Path,
    target: Path,
    *,
    names: Sequence[str] = tuple(FORMATS),
    data_dir: Path | None = None,
    dynamic_batch: bool = False,
    force: bool = False,
    command: str = "",
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Exports a run, and proves each file equal to the model before any of it is in its place.

    Args:
        run_path: The run folder.
        target: The folder to make.
        names: Keys of `FORMATS`.
        data_dir: Folder of the data set's files, as `load_bank` takes it.
        dynamic_batch: Whether the TFLite files take any number of mixtures; else one.
        force: Whether an earlier export in `target` is replaced.
        command: The command to write down as the one that made the export.
        report: Told of each step in one line.

    Returns:
        The manifest.

    Raises:
        CheckpointError: The run is missing, damaged, has no weights, or is no multi-source VAE.
        ConfigError: A format is unknown, or the folder cannot be made.
        DataError: The data set cannot be read.
        OutputExistsError: `target` exists and may not be replaced.
        ExportError: A file differs from the model. Nothing is left behind and an earlier export stays.
    """
    wanted = formats.get_formats(names)
    _check_target(target, force)
    run = Run.load(run_path)
    with _staging(target) as staging, tempfile.TemporaryDirectory() as work:
        report(f"loading {run_path}")
        model = float32_model(run)
        reference, calibration = _mixtures(run, model, data_dir)
        report("writing " + ", ".join(f.path for f in wanted))
        _write(model, wanted, staging, Path(work), calibration, dynamic_batch)
        reports = {}
        for fmt in wanted:
            reports[fmt.name] = check(fmt, staging / fmt.path, reference, Path(work))
            report(_passed(fmt, reports[fmt.name]))
        export = Export(target.name, command, run, reference, reports, dynamic_batch)
        described = manifest(export, staging)
        write_json(staging / MANIFEST, described)
        write_text(staging / "README.md", card(export, described))
    return described


def _check_target(target: Path, force: bool) -> None:
    if not target.exists():
        return
    if not (target / MANIFEST).is_file():
        raise OutputExistsError(f"{target} exists and is no export of ours; choose another --to.")
    if not force:
        raise OutputExistsError(f"{target} holds an earlier export; replace it by --force, or choose another --to.")


@contextlib.contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A folder beside the target that takes its place at the end of the block, an earlier export's too."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{target} cannot be made ({error.strerror}); choose another --to.") from error
    retired = target.with_name(f".replaced-{os.getpid()}-{target.name}")
    try:
        with replacing(target) as staging:
            try:
                staging.mkdir()
            except OSError as error:
                raise ConfigError(f"{target} cannot be made ({error.strerror}); choose another --to.") from error
            yield staging
            if target.exists():
                os.replace(target, retired)
    except BaseException:
        if retired.exists():
            os.replace(retired, target)
        raise
    if retired.exists():
        shutil.rmtree(retired)


def float32_model(run: Run) -> Any:
    """The run's model in float32 throughout, whatever precision it was trained in."""
    from vae_bss_tf.model import MultiSourceVAE

    trained = run.model()
    if not isinstance(trained, MultiSourceVAE):
        raise CheckpointError(f"{run.path} holds a {run.system}; only the multi-source VAE and AE are exported.")
    model = MultiSourceVAE(trained.config)
    model.set_weights(trained.get_weights())
    return model


def _mixtures(run: Run, model: Any, data_dir: Path | None) -> tuple[Reference, Any]:
    data = run.preset.data
    held_out = evaluation_mixtures(
        load_bank(data.dataset, "test", data_dir), num_mixed=data.num_mixed, num_mixtures=NUM_HELD_OUT
    )
    calibration = evaluation_mixtures(
        load_bank(data.dataset, "train", data_dir), num_mixed=data.num_mixed, num_mixtures=NUM_CALIBRATION
    )
    return Reference.of(model, held_out), calibration.mixtures


def _write(model: Any, wanted: list[Format], staging: Path, work: Path, calibration: Any, dynamic_batch: bool) -> None:
    from export import saved_model

    paths = {f.name: staging / f.path for f in wanted}
    tflite_paths = {name: path for name, path in paths.items() if name.startswith("tflite")}
    onnx_paths = {name: path for name, path in paths.items() if name.startswith("onnx")}
    any_batch = paths.get("saved_model", work / "any_batch")
    saved_model.write(model, any_batch)
    with converters() as pool:
        jobs = []
        if tflite_paths:
            source = any_batch
            if not dynamic_batch:
                source = work / "one_mixture"
                saved_model.write(model, source, batch_size=1)
            jobs.append(pool.submit(tflite.convert, source, tflite_paths, calibration))
        if onnx_paths:
            jobs.append(pool.submit(onnx.convert, any_batch, onnx_paths, work))
        for job in jobs:
            job.result()


def _passed(fmt: Format, report: dict[str, Any]) -> str:
    return (
        f"{fmt.name}: largest error of the sources {report['max_abs_error']['sources']:.1e}, "
        f"SI-SDR {report['changes_db']['si_sdr']:+.3f} dB, {report['latency_ms']:.2f} ms a mixture"
    )
