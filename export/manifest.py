"""`manifest.json`, which describes an export to programs, and `README.md`, its model card for people."""

import dataclasses
import importlib.metadata
import json
import platform
import shlex
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export.formats import FORMATS
from export.gate.parity import Reference
from export.writers.onnx import OPSET
from training.run import Run
from vae_bss_tf.config import Preset
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
    """

    name: str
    command: str
    run: Run
    reference: Reference
    reports: dict[str, dict[str, Any]]
    dynamic_batch: bool


def manifest(export: Export, folder: Path) -> dict[str, Any]:
    """Describes an export.

    Args:
        export: What was exported and measured.
        folder: Where its files stand.

    Returns:
        What `manifest.json` holds: `formats` lists each file with its size and SHA-256.
    """
    preset, held_out = export.run.preset, export.reference.held_out
    return {
        "name": export.name,
        "command": export.command,
        "training_command": training_command(export.run),
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
            "scores_db": export.reference.scores,
        },
        "formats": {name: _entry(name, export, folder) for name in export.reports},
    }


def training_command(run: Run) -> str:
    """The command that trains a model of a run's settings: the nearest preset, and what differs from it."""
    wanted = run.preset.to_dict()

    def settings(preset: Preset) -> list[str]:
        parts = preset.to_dict()
        return [
            f"{part}.{field}={json.dumps(value, separators=(',', ':'))}"
            for part, values in wanted.items()
            for field, value in values.items()
            if parts.get(part, {}).get(field) != value
        ]

    alike = {name: settings(preset) for name, preset in PRESETS.items() if preset.to_dict().keys() == wanted.keys()}
    name = min(alike, key=lambda name: len(alike[name]))
    system = [] if run.system == "vae" else ["--system", run.system]
    changes = [word for setting in alike[name] for word in ("--set", setting)]
    init = [] if run.init is None else ["--init", f"runs/{run.init}"]
    return shlex.join(["python", "-m", "training.fit", "--preset", name, *system, *init, *changes])


def card(export: Export, described: dict[str, Any]) -> str:
    """Writes the model card.

    Args:
        export: What was exported and measured.
        described: Its manifest.

    Returns:
        Markdown.
    """
    preset = export.run.preset
    model, data, train = preset.model, preset.data, preset.train
    shape = ", ".join(str(n) for n in model.input_shape)
    counts = " or ".join(str(m) for m in data.num_mixed)
    scores = export.reference.scores
    epochs = export.run.metrics.get("epochs", train.epochs)
    units = f"{_listed(model.hidden_units)} units"
    if model.encoder_units:
        units = f"{_listed(model.encoder_units)} units in the encoder, {_listed(model.hidden_units)} in the decoder"
    if model.convolutions:
        units = f"convolutions of {_listed(model.convolutions)} channels and {units}"
    if model.corrector_units:
        convolutions = f"{_listed(model.corrector_convolutions)} channels and " if model.corrector_convolutions else ""
        times = f"{model.corrector_iterations}, in training {model.corrector_training_iterations}"
        units += f", a corrector of {convolutions}{_listed(model.corrector_units)} units applied {times} times"
    if model.mask_channels:
        units += f", a mask network of {_listed(model.mask_channels)} channels, which alone was trained last"
    remixed = ""
    if train.remix_weight:
        remixed = f", remixing with weight {train.remix_weight:g} after {100 * train.remix_start:g} % of the epochs"
        if train.remix_mask_start < 1:
            remixed += f", masked after {100 * train.remix_mask_start:g} %"
    intro = f"""Separates a mixture of {counts} sources, [{shape}], into {model.num_sources}. Learned from mixtures
        alone: no clean source was seen in training. The method is that of J. Neri, R. Badeau and P. Depalle,
        "Unsupervised Blind Source Separation with Variational Auto-Encoders", EUSIPCO 2021. This card is generated with
        the export; what it says stands in `manifest.json` too."""
    names = f"""Every file has the same names: input `mixture`, float32 in [0, 1]; outputs `sources` (masked: they sum
        to the mixture), `estimates` (the decoder's outputs), `latent_mean` and `latent_log_variance`. Nothing is
        sampled: the latent is its posterior mean. {_batch_sentence(export)}"""
    quality = f"""Means over {described["reference"]["num_mixtures"]} mixtures of the test split of `{data.dataset}`,
        masked sources matched to the true ones{_score_of(preset)}. The Keras model: SI-SDR
        {scores["si_sdr"]:.2f} dB, PSNR {scores["psnr"]:.2f} dB (sources at full scale) or
        {scores["psnr_halved"]:.2f} dB (at half scale). The largest error is over
        extreme mixtures too, such as noise. Latency: one mixture, one thread, median, on the machine that made the
        export."""
    begun = "" if export.run.init is None else f", begun with the weights of `runs/{export.run.init}`"
    trained = shlex.join(["--output", f"runs/{export.run.path.name}"])
    training = f"""Data set `{data.dataset}`; a mixture is the sum of {counts} sources, each times 1/{data.max_mixed}.
        {epochs} epochs of {train.mixtures_per_epoch:,} mixtures, batches of {train.batch_size}, learning rate
        {train.learning_rate:g} ({train.learning_rate_schedule}), KL weight {train.kl_weight:g} to
        {train.final_kl_weight:g} ({train.kl_schedule}){remixed}, seed {train.seed}{begun}. Network
        `{model.network}` of {units}, {model.latent_dim} latents a source, prior {model.prior}, likelihood
        {model.likelihood} of scale {model.likelihood_scale:.4g}. Config {described["config_hash"]}. Trained (with
        --data-dir where the data is not fetched) and exported by"""
    limits = """It knows the kind of source it was trained on, mixed as above, and no other: on anything else the
        outputs still sum to the mixture but mean little. Values must lie in [0, 1]. The order of the outputs carries
        no meaning. int8 files differ from the model as the table says; full int8 was calibrated on mixtures of the
        training split."""
    return "\n\n".join(
        [
            f"# {export.name}",
            _paragraph(intro),
            "## Use",
            "```python\nfrom vae_bss_tf.runtime import load\n\n"
            f'model = load("{export.name}")  # this folder, or one of its files\n'
            f"sources = model.separate(mixtures)  # [n, {shape}] -> [n, {model.num_sources}, {shape}]\n```",
            _paragraph(names),
            "## Scores and files",
            _paragraph(quality),
            _table(described),
            "## Data and training",
            _paragraph(training),
            f"```\n{described['training_command']} {trained}\n{export.command}\n```",
            f"![The validation's ELBO, likelihood and KL, and the loss of the last stage]({COURSE})",
            "## Limits",
            _paragraph(limits),
            "## Licence",
            "Apache-2.0, as the project. The licence of the training data is its own.\n",
        ]
    )


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(str(size) for size in sizes)


def _paragraph(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 120, break_on_hyphens=False)


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


def _entry(name: str, export: Export, folder: Path) -> dict[str, Any]:
    path = folder / FORMATS[name].path
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    listed = {str(f.relative_to(folder)): {"bytes": f.stat().st_size, "sha256": sha256(f)} for f in files}
    return {
        "path": FORMATS[name].path,
        "batch": "one" if name.startswith("tflite") and not export.dynamic_batch else "any",
        "bytes": sum(file["bytes"] for file in listed.values()),
        "files": listed,
        **export.reports[name],
    }


def _score_of(preset: Preset) -> str:
    return "" if preset.audio is None else "; PSNR of spectrograms as the model sees them, SI-SDR of waveforms"


def _batch_sentence(export: Export) -> str:
    if export.dynamic_batch or not any(name.startswith("tflite") for name in export.reports):
        return "Every file takes any number of mixtures."
    return "The TFLite files take one mixture a call, the shape that browsers want; the others any number."


def _table(manifest: dict[str, Any]) -> str:
    lines = [
        "| file | for | MB | SI-SDR | PSNR | largest error of the sources | ms |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, entry in manifest["formats"].items():
        scores = entry["scores_db"]
        cells = [
            f"`{entry['path']}`",
            FORMATS[name].description,
            f"{entry['bytes'] / 1e6:.1f}",
            f"{scores['si_sdr']:.2f}",
            f"{scores['psnr']:.2f}",
            f"{entry['max_abs_error']['sources']:.1g}",
            f"{entry['latency_ms']:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
