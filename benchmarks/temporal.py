"""Latents through time against single windows: `python -m benchmarks.temporal --data-dir DUETS --truth DUETS/test`.

Neri, Badeau and Depalle name a model of the temporal evolution of sources as their next step. `TemporalVAE` is one: a
source has a static latent for a whole excerpt and a latent for each window, with a learned autoregressive prior over
their course. It is trained by its ELBO on the same mixtures, for the same time, as the plain way, which separates each
window by itself. Both are put together over whole recordings by `vae_bss_tf.Separator`, and judged as
`benchmarks.order` does.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import add_json, write_results
from benchmarks.order import WAYS, judged
from training.tables import to_markdown
from vae_bss_tf.arguments import Parser, command
from vae_bss_tf.audio import SUFFIXES
from vae_bss_tf.audio.separator import Separator
from vae_bss_tf.presets import get_preset
from vae_bss_tf.startup import import_tensorflow


def run(options: argparse.Namespace) -> None:
    """Trains and judges all, prints the table and writes the JSON file."""
    import_tensorflow()
    from benchmarks._temporal_vae import NUM_WINDOWS, of_excerpts, train_temporal
    from training import fit
    from training.evaluation.truth_folder import find_cases

    preset = get_preset("mixtures")
    phase = preset.recipe.phases[0].replace(learning_rate_floor=0.0)
    preset = preset.replace(
        model=preset.model.replace(mask_channels=()), recipe=preset.recipe.replace(phases=(phase,), seed=options.seed)
    )
    audio, longer = preset.audio, of_excerpts(preset).audio
    assert audio is not None
    assert longer is not None
    cases = find_cases(options.truth, SUFFIXES)
    with tempfile.TemporaryDirectory() as folder:
        plain = fit.train(preset, output=Path(folder) / "run", data_dir=options.data_dir, minutes=options.minutes)
        separators = {"single windows": Separator(plain.model(), audio)}
    for static_dim, weight in ((0, 1.0), (4, 1.0), (4, float(NUM_WINDOWS))):
        model = train_temporal(preset, options.data_dir, options.minutes, static_dim=static_dim, static_weight=weight)
        separators[f"through time, {static_dim} static, KL x {weight:g}"] = Separator(model, longer)
    rows = []
    for name, separator in separators.items():
        found = [judged(separator, case) for case in cases]
        rows.append({"name": name, **{way: float(np.mean([row["si_sdr"][way] for row in found])) for way in WAYS}})
    titles = ["SI-SDR, dB, order by", *WAYS.values()]
    print("\n".join(to_markdown([titles, *([row["name"], *(f"{row[w]:.2f}" for w in WAYS)] for row in rows)])))
    write_results(
        options.json, command=options.command, recordings=len(cases), minutes=options.minutes, seed=options.seed,
        rows=rows,
    )  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m benchmarks.temporal",
        description="Latents through time, static and autoregressive, against single windows, after the same minutes.",
        epilog="example: python -m benchmarks.temporal --data-dir DUETS --truth DUETS/test",
    )
    parser.add_argument("--data-dir", required=True, type=Path, help="folder of recordings that are mixtures")
    parser.add_argument("--truth", required=True, type=Path, help="folder of folders, each a mixture and its sources")
    parser.add_argument("--minutes", type=float, default=4.0, help="training of each model (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    add_json(parser, "temporal")
    return parser


main = command(_parser, run)


if __name__ == "__main__":
    sys.exit(main())
