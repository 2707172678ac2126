"""`README.md` of an export: its model card, for people; `manifest.json` tells programs the same."""

import shlex
import textwrap
from collections.abc import Sequence
from typing import Any

from export.formats import FORMATS
from export.manifest import COURSE, Export
from training.tables import to_markdown
from vae_bss_tf.audio.context import context_of
from vae_bss_tf.config import Preset
from vae_bss_tf.phases import Phase


def card(export: Export, described: dict[str, Any]) -> str:
    """Writes the model card.

    Args:
        export: What was exported and measured.
        described: Its manifest.

    Returns:
        Markdown.
    """
    preset = export.run.preset
    model, data, recipe = preset.model, preset.data, preset.recipe
    shape = ", ".join(str(n) for n in model.input_shape)
    counts = " or ".join(str(m) for m in data.num_mixed)
    seen = export.run.metrics.get("mixtures")
    units = f"{_listed(model.hidden_units)} units"
    if model.encoder_units:
        units = f"{_listed(model.encoder_units)} units in the encoder, {_listed(model.hidden_units)} in the decoder"
    if model.convolutions:
        units = f"convolutions of {_listed(model.convolutions)} channels and {units}"
    if model.upsampling:
        units += f", transposed convolutions of {_listed(model.upsampling)} channels at the end of the decoder"
    if model.mask_channels:
        units += f", a mask network of {_listed(model.mask_channels)} channels"
    phases = "; ".join(_described(phase) for phase in recipe.phases)
    mixture, made = "mixture", "its items are mixtures, taken as they are"
    if export.has_truth:
        mixture = f"mixture of {counts} sources"
        made = f"a mixture is the sum of {counts} sources, each times 1/{data.max_mixed}"
    intro = f"""Separates a {mixture}, [{shape}], into {model.num_sources}. Learned from mixtures
        alone: no clean source was seen in training. The method was published by J. Neri, R. Badeau and P. Depalle,
        "Unsupervised Blind Source Separation with Variational Auto-Encoders", EUSIPCO 2021. This card is generated with
        the export; what it says stands in `manifest.json` too."""
    takes_waveforms = any(FORMATS[name].waveform for name in export.reports)
    but = "but those that take waveforms in [-1, 1] and give `sources` alone " if takes_waveforms else ""
    names = f"""Every file {but}has the same names: input `mixture`, float32 in [0, 1]; outputs `sources` (masked: they
        sum to the mixture), `estimates` (the decoder's outputs), `latent_mean` and `latent_log_variance`. Nothing is
        sampled: the latent is its posterior mean. {_batch_sentence(export)}"""
    quality = f"""{_quality(export, described)} The largest error is over extreme mixtures too, such as noise. Latency:
        one mixture, one thread, median, on the machine that made the export."""
    begun = "" if export.run.init is None else f", starting from the weights of `{export.run.init}`"
    trained = shlex.join(["--output", f"runs/{export.run.path.name}"])
    command = described["training_command"]
    commands = [f"{command} {trained}"] if command else []
    if "context" in described:
        commands.append(f"{described['context']['training_command']} --run runs/{export.run.path.name} --data-dir DIR")
    commands.append(export.command)
    budget = f"{seen:,} mixtures" if seen else f"{recipe.epochs} epochs"
    training = f"""Data set `{data.dataset}`; {made}.
        Trained on {budget} in {len(recipe.phases)} phases ({phases}), seed {recipe.seed}{begun}. Network
        `{model.network}` of {units}, {model.latent_dim} latents a source, prior {model.prior}, likelihood
        {model.likelihood} of scale {model.likelihood_scale:.4g}. Config {described["config_hash"]}. Trained (with
        --data-dir where the data is not fetched) and exported by"""
    limits = """It knows the kind of source it was trained on, mixed as above, and no other: on anything else the
        outputs still sum to the mixture but mean little. Values must lie in [0, 1]. The order of the outputs carries
        no meaning. int8 files differ from the model as the table says; full int8 was calibrated on mixtures of the
        training split."""
    licence = export.data_licence or "not stated; `python -m export --data-licence` states it"
    return "\n\n".join(
        [
            f"# {export.name}",
            _paragraph(intro),
            "## Use",
            "```python\nfrom vae_bss_tf.runtime import load\n\n"
            f'model = load("{export.name}")  # this folder, or one of its files\n'
            f"sources = model.separate(mixtures)  # [n, {shape}] -> [n, {model.num_sources}, {shape}]\n```",
            _paragraph(names),
            *_sound(export, described),
            _paragraph("""To train on from these weights (float16, without code in them), give this folder to
                `python -m training.fit --init`; to write other formats, to `python -m export --run`."""),
            "## Scores and files",
            _paragraph(quality),
            _table(described),
            "## Data and training",
            _paragraph(training),
            "```\n" + "\n".join(commands) + "\n```",
            f"![The history of the training, over all its phases]({COURSE})",
            "## Limits",
            _paragraph(limits),
            "## Licence",
            f"{_paragraph(f'The model: Apache-2.0, as the project. The training data: {licence}.')}\n",
        ]
    )


def _sound(export: Export, described: dict[str, Any]) -> list[str]:
    """What a card of a model of sound says of recordings."""
    audio = export.run.preset.audio
    if audio is None:
        return []
    said = f"""Of recordings it hears up to {audio.highest_frequency:,.0f} Hz: it works at {audio.sample_rate:,.1f} Hz,
        in windows of {audio.num_samples / audio.sample_rate:.2f} s ({audio.num_samples:,} samples). What a
        recording holds above is shared among the sources in proportion to their energy at the time. Recordings of any
        length and rate, with one channel or two, become one WAV file for each source by"""
    code = (
        "```python\nfrom pathlib import Path\n\nfrom vae_bss_tf.audio.separator import Separator\n\n"
        f'separator = Separator.load("{export.name}")\n'
        'separator.separate_file(Path("recording.wav"), Path("stems"))\n```'
    )
    command = f"or by `python -m vae_bss_tf.separate recording.wav --model {export.name} --output stems`."
    if "context" not in described:
        return [_paragraph(said), code, _paragraph(command)]
    scores = described["context"]
    seconds = context_of(audio)[1] / audio.sample_rate
    corrected = f"""Both correct the sources of a recording by {seconds:.0f} seconds around, with the network in
        `context`: on remixes of held-out recordings the signal-to-distortion ratio is {scores["val_sdr"]:.1f} dB with
        it and {scores["val_sdr_before"]:.1f} dB without. The files alone, which separate single windows, do not."""
    return [_paragraph(said), code, _paragraph(command), _paragraph(corrected)]


def _quality(export: Export, described: dict[str, Any]) -> str:
    data = export.run.preset.data
    if not export.has_truth:
        unknown = "The true sources of the data set's mixtures are not known, so there are no scores against them."
        known = export.run.metrics["test"]["without_truth"]
        if not known:
            return unknown
        return f"""{unknown} Separating mixtures of its own sources, the model improves the SI-SDR
            by {known["remix_si_sdri"]:.2f} dB, where 0 dB means that nothing is separated;
            {100 * known["shared_out"]:.0f} % of the mixtures are shared out among all sources."""
    scores = export.reference.scores
    return f"""Means over the sources of {described["reference"]["num_mixtures"]} mixtures of the test split of
        `{data.dataset}`, masked sources matched to the true ones{_score_of(export.run.preset)}. The Keras model: SI-SDR
        {scores["si_sdr"]:.2f} dB, PSNR {scores["psnr"]:.2f} dB (sources at full scale) or
        {scores["psnr_halved"]:.2f} dB (at half scale)."""


def _described(phase: Phase) -> str:
    of_kl = f", KL weight {phase.kl_weight:g}" if phase.objective.endswith("elbo") else ""
    if of_kl and phase.final_kl_weight != phase.kl_weight:
        of_kl += f" to {phase.final_kl_weight:g}"
    rounds = "" if phase.rounds == 1 else f" in up to {phase.rounds} rounds"
    return (
        f"`{phase.name}`{rounds}: {phase.objective.replace('_', ' ')}, batches of {phase.batch_size}, learning rate "
        f"{phase.learning_rate:g}{of_kl}"
    )


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(str(size) for size in sizes)


def _paragraph(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 120, break_on_hyphens=False)


def _score_of(preset: Preset) -> str:
    return "" if preset.audio is None else "; PSNR of spectrograms as the model sees them, SI-SDR of waveforms"


def _batch_sentence(export: Export) -> str:
    if export.dynamic_batch or not any(name.startswith("tflite") for name in export.reports):
        return "Every file takes any number of mixtures."
    return "The TFLite files take one mixture a call, the shape that browsers want; the others any number."


def _table(manifest: dict[str, Any]) -> str:
    scored = {"SI-SDR": "si_sdr", "PSNR": "psnr"} if manifest["reference"]["scores_db"] else {}
    headings = ["file", "for", "MB", *scored, "largest error of the sources", "ms"]
    rows = [headings]
    for name, entry in manifest["formats"].items():
        cells = [
            f"`{entry['path']}`",
            FORMATS[name].description,
            f"{entry['bytes'] / 1e6:.1f}",
            *(f"{entry['scores_db'][score]:.2f}" for score in scored.values()),
            f"{entry['max_abs_error']['sources']:.1g}",
            f"{entry['latency_ms']:.2f}",
        ]
        rows.append(cells)
    return "\n".join(to_markdown(rows))
