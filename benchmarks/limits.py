"""What holds a model of sound back: `python -m benchmarks.limits saved_models/duets --truth DUETS`.

Recordings with known sources are separated window by window and put together in the order that the truth chooses, so
that the order costs nothing. What the model separates stands beside two ideals in its place: its decoder and masks from
latents that are fitted to the true sources, which a perfect encoder could find; and masks of the true sources' own
spectrograms at the resolution that the model sees, which a perfect decoder could give.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from benchmarks import add_json, write_results
from benchmarks.order import at_rate, true_orders
from training.tables import to_markdown
from vae_bss_tf.arguments import Parser, command
from vae_bss_tf.audio import SUFFIXES, spectrogram
from vae_bss_tf.audio.overlap_add import Orders, overlap_add, windows
from vae_bss_tf.errors import ConfigError
from vae_bss_tf.startup import import_tensorflow

if TYPE_CHECKING:
    from training.evaluation.truth_folder import Case
    from vae_bss_tf.config import AudioConfig
    from vae_bss_tf.model import MultiSourceVAE

WAYS = {
    "model": "the model, in the best order",
    "latents": "its decoder and masks, latents fitted to the true sources",
    "masks": "masks of the true sources, at the model's resolution",
}
_FITTING_STEPS = 200.0

Array = npt.NDArray[np.float32]
Separate = Callable[[Array, Array], Array]


def fitted(model: "MultiSourceVAE") -> Separate:
    """Makes the function that separates by latents which are fitted to the true sources.

    Args:
        model: The model.

    Returns:
        Takes mixtures, float32 `[n, *input_shape]`, and their sources, float32 `[n, num_sources, *input_shape]`, and
        gives the sources as the model's decoder and masks have them, in the order of the given ones.
    """
    import tensorflow as tf

    from vae_bss_tf import metrics
    from vae_bss_tf.objectives.distributions import mixture_likelihood
    from vae_bss_tf.refinement import LEARNING_RATE, search

    config = model.config
    rank = len(config.input_shape)

    @tf.function(jit_compile=True)
    def fit(mixture: tf.Tensor, start: tf.Tensor, sources: tf.Tensor) -> tf.Tensor:
        def objective(latents: tf.Tensor) -> tf.Tensor:
            likelihood = mixture_likelihood(config.likelihood, model.decode(latents), config.likelihood_scale, rank)
            return -tf.reduce_sum(likelihood.log_prob(sources), axis=1)

        return model.masked(model.decode(search(objective, start, tf.constant(_FITTING_STEPS), LEARNING_RATE)), mixture)

    def separate(mixtures: Array, sources: Array) -> Array:
        mean = model.encode(mixtures)[0].numpy()
        products = np.einsum("nkfb,nmfb->nkm", model.decode(mean).numpy(), sources, dtype=np.float64)
        start = np.take_along_axis(mean, metrics.match_sources(products)[..., np.newaxis], axis=1)
        return fit(mixtures, start, sources).numpy()

    return separate


def judged(ways: dict[str, Separate], audio: "AudioConfig", case: "Case") -> dict[str, float]:
    """Separates one recording in several ways, each in the order that the truth chooses for each window.

    Args:
        ways: What separates, by name: mixtures and their true sources, as the model sees them, to sources.
        audio: The settings of the model's spectrograms.
        case: The recording and its sources.

    Returns:
        The mean SI-SDR of each way, in dB, at the model's rate.
    """
    from vae_bss_tf import metrics

    signals = [at_rate(path, audio.sample_rate) for path in (case.mixture, *case.sources)]
    cut = [list(windows(iter([signal[:, np.newaxis]]), audio.num_samples, 1)) for signal in signals]
    batches: dict[str, list[tuple[Array, float]]] = {name: [] for name in ways}
    orders: dict[str, list[Orders]] = {name: [] for name in ways}
    for parts in zip(*cut, strict=True):
        mixture, *sources = (batch[:, 0] for batch, _ in parts)
        real, imaginary = spectrogram.stft(mixture, audio)
        scale = spectrogram.largest_magnitude(real, imaginary, audio)
        seen = [spectrogram.features(*spectrogram.stft(s, audio), audio, scale=scale) for s in sources]
        features, of_sources = spectrogram.features(real, imaginary, audio), np.clip(np.stack(seen, axis=1), 0, 1)
        for name, separate in ways.items():
            masks = spectrogram.source_masks(separate(features, of_sources), audio)
            separated = spectrogram.apply_masks(real, imaginary, masks, audio).transpose(0, 2, 1)
            orders[name].append(true_orders(separated, np.stack(sources, axis=-1)))
            batches[name].append((separated[..., np.newaxis], parts[0][1]))
    scores = {}
    for name in ways:
        outputs = np.concatenate(list(overlap_add(batches[name], np.concatenate(orders[name]))))[..., 0].T
        ratios = metrics.pairwise_si_bss_eval(outputs[np.newaxis], np.stack(signals[1:])[np.newaxis]).sdr
        scores[name] = float(np.take_along_axis(ratios, metrics.match_sources(ratios)[:, np.newaxis], axis=1).mean())
    return scores


def run(options: argparse.Namespace) -> None:
    """Judges all recordings, prints the table and writes the JSON file."""
    import_tensorflow()
    from training.evaluation.truth_folder import find_cases
    from training.run import Run
    from vae_bss_tf.model import MultiSourceVAE

    trained = Run.load(options.model)
    model, audio = trained.model(), trained.preset.audio
    if audio is None or not isinstance(model, MultiSourceVAE):
        raise ConfigError(f"{options.model} holds no multi-source VAE of sound.")
    cases = find_cases(options.truth, SUFFIXES)
    for case in cases:
        if len(case.sources) != model.config.num_sources:
            raise ConfigError(f"{case.name} has {len(case.sources)} sources, the model {model.config.num_sources}.")
    fit = fitted(model)
    ways: dict[str, Separate] = {
        "model": lambda mixtures, sources: model.separate(mixtures),
        "latents": fit,
        "masks": lambda mixtures, sources: sources,
    }
    rows = [judged(ways, audio, case) for case in cases]
    mean = {way: float(np.mean([row[way] for row in rows])) for way in WAYS}
    table = [["separated by", "SI-SDR, dB"], *([title, f"{mean[way]:.2f}"] for way, title in WAYS.items())]
    print("\n".join(to_markdown(table)))
    write_results(options.json, command=options.command, recordings=len(rows), rate=audio.sample_rate, si_sdr=mean)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m benchmarks.limits",
        description="What holds a model of sound back: its encoder, its decoder and masks, or its resolution.",
        epilog="example: python -m benchmarks.limits saved_models/duets --truth ../shared/data/duets/test",
    )
    parser.add_argument("model", type=Path, help="run folder of a model of sound, or an export with weights")
    parser.add_argument("--truth", required=True, type=Path, help="folder of folders, each a mixture and its sources")
    add_json(parser, "limits")
    return parser


main = command(_parser, run)


if __name__ == "__main__":
    sys.exit(main())
