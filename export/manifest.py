"""`manifest.json`, which describes an export to programs."""

import dataclasses
import importlib.metadata
import json
import platform
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export.formats import FORMATS
from export.gate.parity import Reference
from export.writers.onnx import OPSET
from training.context.trainer import ContextTraining, scores_of, settings_of
from training.fit import completed
from training.options import for_pictures
from training.run import WEIGHTS, Run
from vae_bss_tf.audio.context import FOLDER
from vae_bss_tf.config import AudioConfig, DataConfig, Preset
from vae_bss_tf.errors import ConfigError
from vae_bss_tf.files import sha256
from vae_bss_tf.presets import PRESETS
from vae_bss_tf.runtime import INPUT, SETTINGS, SIGNATURE

COURSE = "training.png"
_LIBRARIES = (
    "vae-bss-tf",
    "tensorflow",
    "keras",
    "numpy",
    "ai-edge-litert",
    "ai-edge-quantizer",
    "tf2onnx",
    "onnx",
    "onnxruntime",
)


@dataclasses.dataclass(frozen=True)
class Export:
    """What the manifest and the card are made from.

    Attributes:
        name: Name of the export, its folder's.
        command: The command that made it.
        run: The run it was made from.
        reference: The held-out mixtures and the model's outputs.
        reports: What the gate measured, by name of format.
        dynamic_batch: Whether the TFLite files take any number of mixtures.
        data_licence: The licence of the training data; empty where it is not known.

    Example:
        >>> export = Export("mnist", "python -m export ...", run, reference, reports, False, "CC BY-SA 3.0")
        >>> described = manifest(export, Path("exported/mnist"))
    """

    name: str
    command: str
    run: Run
    reference: Reference
    reports: dict[str, dict[str, Any]]
    dynamic_batch: bool
    data_licence: str

    @property
    def has_truth(self) -> bool:
        """Whether the true sources of the held-out mixtures are known, and so scores against them."""
        return self.run.metrics.get("test", {}).get("has_truth", True)


def manifest(export: Export, folder: Path) -> dict[str, Any]:
    """Describes an export.

    Args:
        export: What was exported and measured.
        folder: Where its files stand.

    Returns:
        What `manifest.json` holds: `formats` lists each file with its size and SHA-256. Scores are left out where the
        true sources of the mixtures are not known.
    """
    preset, held_out = export.run.preset, export.reference.held_out
    return {
        "name": export.name,
        "command": export.command,
        "training_command": training_command(export.run),
        "data_licence": export.data_licence,
        "num_sources": preset.model.num_sources,
        "signatures": _signatures(preset),
        "preset": preset.to_dict(),
        "config_hash": preset.config_hash(),
        "onnx_opset": OPSET,
        "versions": {"python": platform.python_version(), **{n: importlib.metadata.version(n) for n in _LIBRARIES}},
        "reference": {
            "dataset": preset.data.dataset,
            "split": "test",
            "num_mixtures": len(held_out.mixtures),
            "num_mixed": list(preset.data.num_mixed),
            "scores_db": export.reference.scores if export.has_truth else {},
        },
        "weights": _listed([folder / WEIGHTS], folder),
        **_context(folder, preset.audio),
        "formats": {name: _entry(name, export, folder) for name in export.reports},
    }


def training_command(run: Run) -> str | None:
    """The command that trains a model of a run's settings: the nearest preset, and what differs from it.

    Args:
        run: The run.

    Returns:
        The command; None where no preset has phases of these names, as for runs of release 0.1.
    """
    wanted = _flat(run.preset)
    names = [phase.name for phase in run.preset.recipe.phases]
    alike = {}
    for name, preset in PRESETS.items():
        if (preset.audio is None) != (run.preset.audio is None):
            continue
        try:
            trained = completed(_adapted(preset, run.preset), run.system)
        except ConfigError:  # it has a phase that takes fewer sources
            continue
        if [phase.name for phase in trained.recipe.phases] == names:
            given = _flat(trained) | {path: _flat(preset)[path] for path in ("model.num_sources", "data.num_mixed")}
            changed = {path: value for path, value in wanted.items() if given.get(path) != value}
            # The one phase of another system takes its settings from the preset's first.
            first = preset.recipe.phases[0].name
            own = {path if run.system == "vae" else _of_phase(path, first): value for path, value in changed.items()}
            alike[name] = [f"{path}={value}" for path, value in own.items()]
    if not alike:
        return None
    name = min(alike, key=lambda name: len(alike[name]))
    system = [] if run.system == "vae" else ["--system", run.system]
    changes = [word for setting in alike[name] for word in ("--set", setting)]
    init = [] if run.init is None else ["--init", run.init]
    pictures = _words_of_pictures(run.preset.data)
    return shlex.join(["python", "-m", "training.fit", "--preset", name, *pictures, *system, *init, *changes])


def _adapted(preset: Preset, trained: Preset) -> Preset:
    """A preset with the counts of what was trained, and for pictures of a folder with their size."""
    counted = preset.replace(
        model=preset.model.replace(num_sources=trained.model.num_sources),
        data=preset.data.replace(num_mixed=trained.data.num_mixed),
    )
    if trained.data.dataset != "images":
        return counted
    data = counted.data.replace(dataset="images", size=trained.data.size, channels=trained.data.channels)
    return for_pictures(counted, data, trained.model.input_shape)


def _words_of_pictures(data: DataConfig) -> list[str]:
    if data.dataset != "images":
        return []
    size = ["--size", "x".join(map(str, data.size))] if data.size else []
    channels = ["--channels", str(data.channels)] if data.channels else []
    return ["--dataset", "images", *size, *channels]


def _of_phase(path: str, name: str) -> str:
    """A setting's path, in the phase of another name where it is one of a phase."""
    words = path.split(".")
    return ".".join([words[0], name, words[2]]) if len(words) == 3 else path


def _flat(preset: Preset) -> dict[str, str]:
    """Every setting as `--set` takes it: its path and its value as JSON."""
    found: dict[str, Any] = {}
    for part, values in preset.to_dict().items():
        for field, value in values.items():
            if field == "phases":
                found |= {f"recipe.{phase['name']}.{name}": v for phase in value for name, v in phase.items()}
            else:
                found[f"{part}.{field}"] = value
    return {path: json.dumps(value, separators=(",", ":")) for path, value in found.items()}


def _signatures(preset: Preset) -> dict[str, Any]:
    config = preset.model
    source = ["batch", config.num_sources, *config.input_shape]
    latent = ["batch", config.num_sources, config.latent_dim]

    def tensors(**shapes: list[Any]) -> dict[str, Any]:
        return {name: {"shape": shape, "dtype": "float32"} for name, shape in shapes.items()}

    mixture = tensors(**{INPUT: ["batch", *config.input_shape]})
    posterior = tensors(latent_mean=latent, latent_log_variance=latent)

    def strings(name: str) -> dict[str, Any]:
        return {name: {"shape": ["batch"], "dtype": "string"}}

    signatures = {
        SIGNATURE: {"inputs": mixture, "outputs": tensors(sources=source, estimates=source) | posterior},
        "encode": {"inputs": mixture, "outputs": posterior},
        "decode": {"inputs": tensors(latents=latent), "outputs": tensors(estimates=source)},
        SETTINGS: {"inputs": strings("request"), "outputs": strings(SETTINGS)},
    }
    if preset.audio is not None:
        window = preset.audio.num_samples
        sources = tensors(sources=["batch", config.num_sources, window])
        signatures["waveform"] = {"inputs": tensors(**{INPUT: ["batch", window]}), "outputs": sources}
    return signatures


def _context(folder: Path, audio: AudioConfig | None) -> dict[str, Any]:
    """What an export has of a context network, where its run has one."""
    found = folder / FOLDER
    if audio is None or not found.is_dir():
        return {}
    _, training, teacher = settings_of(found)
    changes = {name: value for name, value in training.to_dict().items() if value != getattr(ContextTraining(), name)}
    if teacher is not None:
        changes["teacher"] = teacher
    options = [word for name, value in changes.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = shlex.join(["python", "-m", "training.context", *options])
    files = _listed(sorted(found.iterdir()), folder)
    return {"context": {"training_command": command, **scores_of(found, audio), "files": files}}


def _entry(name: str, export: Export, folder: Path) -> dict[str, Any]:
    path = folder / FORMATS[name].path
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    listed = _listed(files, folder)
    return {
        "path": FORMATS[name].path,
        "batch": "one" if name.startswith("tflite") and not export.dynamic_batch else "any",
        "bytes": sum(file["bytes"] for file in listed.values()),
        "files": listed,
        **export.reports[name],
        **({} if export.has_truth else {"scores_db": {}, "changes_db": {}}),
    }


def _listed(files: Sequence[Path], folder: Path) -> dict[str, Any]:
    return {str(f.relative_to(folder)): {"bytes": f.stat().st_size, "sha256": sha256(f)} for f in files}
