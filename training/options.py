"""The options of `python -m training.fit`, and the settings that they resolve to."""

import argparse
import json
from pathlib import Path
from typing import Any

from training import systems
from vae_bss_tf.arguments import Parser, counts, path
from vae_bss_tf.checks import check_choice, shown
from vae_bss_tf.config import DataConfig, Preset
from vae_bss_tf.datasets import DATASETS
from vae_bss_tf.errors import ConfigError
from vae_bss_tf.presets import PRESETS, for_counts, for_size, get_preset
from vae_bss_tf.sizing import at_sample_rate


def resolve(options: argparse.Namespace) -> tuple[str, Preset]:
    """Makes the settings from a preset and the command's options.

    Args:
        options: As the command's parser gives them.

    Returns:
        The preset's name and the resolved settings.

    Raises:
        ConfigError: A name is unknown or a value is out of its range.
    """
    if options.dataset is not None:
        check_choice("data set", options.dataset, DATASETS)
    name = options.preset or options.dataset or "digits"
    if options.preset is None and name not in PRESETS:
        raise ConfigError(f"{name} has no preset of its own; name one that fits by --preset, such as mnist for images.")
    preset = get_preset(name)
    counts = preset.data.replace(num_mixed=options.num_mixed or preset.data.num_mixed).num_mixed  # checked
    if max(counts) == 1:  # a bank of mixtures
        counts = (options.num_sources or preset.model.num_sources,)
    preset = for_counts(name, counts)
    if (options.dataset or preset.data.dataset) == "images":
        preset = _of_pictures(preset, options)
    elif options.size is not None or options.channels is not None:
        raise ConfigError("--size and --channels are for a folder of pictures, --dataset images; leave them out.")
    if options.sample_rate is not None:
        preset = at_sample_rate(preset, options.sample_rate)
    parts = preset.to_dict()
    flags = {
        "data": {"dataset": options.dataset, "num_mixed": options.num_mixed},
        "model": {"num_sources": options.num_sources},
        "recipe": {"epochs": options.epochs, "early_stopping": options.early_stopping, "seed": options.seed},
    }
    for part, values in flags.items():
        parts[part].update({field: value for field, value in values.items() if value is not None})
    recipe = parts["recipe"]
    if options.phases is not None:
        names = [phase["name"] for phase in recipe["phases"]]
        chosen = [check_choice("phase", phase, names) for phase in options.phases]
        recipe["phases"] = [phase for phase in recipe["phases"] if phase["name"] in chosen]
    of_phases = {
        "batch_size": options.batch_size,
        "mixed_precision": options.mixed_precision,
        "jit_compile": options.jit_compile,
    }
    for phase in recipe["phases"]:
        phase.update({field: value for field, value in of_phases.items() if value is not None})
    for setting in options.set:
        place, field, value = _parse_setting(parts, setting)
        place[field] = value
    made = Preset.from_dict(parts)
    check_choice("data set", made.data.dataset, DATASETS)
    return name, made


def _of_pictures(preset: Preset, options: argparse.Namespace) -> Preset:
    """The preset for the pictures of a folder: their size and channels, and the network that they need."""
    from vae_bss_tf.datasets.own_pictures import picture_shape

    data = preset.data.replace(dataset="images", size=options.size or (), channels=options.channels or 0)
    return for_pictures(preset, data, picture_shape(options.data_dir, data))


def for_pictures(preset: Preset, data: DataConfig, shape: tuple[int, ...]) -> Preset:
    """Adapts a preset to a folder of pictures.

    Args:
        preset: A preset of pictures.
        data: The settings of the folder.
        shape: `(height, width)` or `(height, width, channels)` of its pictures.

    Returns:
        The preset of these data; `images` has the network that suits the size, another one keeps its own.
    """
    own_network = preset.data.dataset == "images"
    sized = for_size(preset, shape) if own_network else preset.replace(model=preset.model.replace(input_shape=shape))
    return sized.replace(data=data)


def _size(text: str) -> tuple[int, ...]:
    try:
        height, _, width = text.lower().partition("x")
        size = int(height), int(width or height)
    except ValueError:
        size = (0, 0)
    if min(size) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size in pixels, such as 64 or 48x64 (height x width)")
    return size


def _parse_setting(parts: dict[str, Any], setting: str) -> tuple[dict[str, Any], str, Any]:
    """Where a setting stands in the parts of a preset, its name there, and its value."""
    path, equals, text = setting.partition("=")
    words = path.split(".")
    if not equals or len(words) not in (2, 3):
        raise ConfigError(
            f"--set {shown(setting)} is not of the form PART.FIELD=VALUE or recipe.PHASE.FIELD=VALUE, such as "
            "model.latent_dim=10 or recipe.separate.learning_rate=5e-4."
        )
    part, field = words[0], words[-1]
    place = parts[check_choice("part of the settings", part, parts)]
    if len(words) == 3:
        listed = parts["recipe"]["phases"]  # of any kind, where it was set before
        phases = {str(p.get("name")): p for p in listed if isinstance(p, dict)} if isinstance(listed, list) else {}
        check_choice("part with phases", part, ["recipe"])
        place = phases[check_choice("phase", words[1], phases)]
    check_choice(f"{'.'.join(words[:-1])} setting", field, place)
    try:
        return place, field, json.loads(text)
    except (ValueError, RecursionError):
        return place, field, text


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def parser() -> argparse.ArgumentParser:
    """Makes the parser of `python -m training.fit`."""
    made = Parser(
        prog="python -m training.fit",
        description="Trains a separator from mixtures alone; by default on the digits that ship with scikit-learn.",
        epilog="example: python -m training.fit --dataset mnist --data-dir DIR --minutes 15",
    )
    made.add_argument("--dataset", help=f"what is mixed: {', '.join(DATASETS)} (default: digits)")
    made.add_argument("--preset", help=f"settings to start from: {', '.join(PRESETS)} (default: the data set's own)")
    made.add_argument("--data-dir", type=path, help="folder of the data set's files; without it they are fetched")
    made.add_argument(
        "--size",
        type=_size,
        metavar="N or HxW",
        help="of --dataset images: pixels that pictures are cut and resized to (default: all have one size)",
    )
    made.add_argument(
        "--channels",
        type=int,
        choices=(1, 3),
        help="of --dataset images: 1 makes all grey, 3 all colour (default: all are alike)",
    )
    made.add_argument(
        "--sample-rate",
        type=float,
        metavar="HZ",
        help="of sound: the rate that the model works at; it hears up to half of it (default: 5512.5)",
    )
    made.add_argument("--system", default="vae", choices=systems.trained(), help="what to train (default: vae)")
    made.add_argument("--num-sources", type=int, metavar="K", help="sources that the model emits")
    made.add_argument(
        "--num-mixed", type=counts, metavar="M[,M...]", help="sources in a mixture, 1 to 4, or several counts to mix"
    )
    made.add_argument("--epochs", type=int, help="the whole budget, shared out among the phases of the recipe")
    made.add_argument("--minutes", type=float, help="the whole budget in minutes: the speed is measured first")
    made.add_argument("--phases", type=_names, metavar="NAME[,NAME...]", help="train only these phases of the recipe")
    made.add_argument("--batch-size", type=int, help="mixtures a step in every phase, over all devices")
    made.add_argument("--mixed-precision", help="of every phase: auto, float32, mixed_bfloat16 or mixed_float16")
    made.add_argument(
        "--early-stopping", type=int, metavar="EPOCHS", help="end a phase after so many epochs without gain"
    )
    made.add_argument(
        "--jit-compile", action=argparse.BooleanOptionalAction, default=None, help="compile every phase by XLA"
    )
    made.add_argument("--seed", type=int)
    made.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PART.FIELD=VALUE",
        help="any other setting, such as model.latent_dim=10 or recipe.separate.learning_rate=5e-4",
    )
    made.add_argument(
        "--strategy",
        default="auto",
        help="auto, mirrored, single, or multi-worker for the hosts that TF_CONFIG names (default: %(default)s)",
    )
    made.add_argument("--output", type=path, help="run folder (default: runs/PRESET-kK-seedSEED)")
    made.add_argument(
        "--resume", nargs="?", const="latest", metavar="BACKUP", help="resume a stopped run from its latest backup"
    )
    made.add_argument(
        "--init",
        type=path,
        metavar="RUN",
        help="begin with the weights of a finished run, of as many sources or fewer",
    )
    made.add_argument("--force", action="store_true", help="delete an earlier run in the run folder first")
    made.add_argument(
        "--quiet",
        action="store_true",
        help="one plain line an epoch instead of a progress bar, as always where errors do not go to a terminal",
    )
    made.add_argument("--dry-run", action="store_true", help="print the resolved settings and stop")
    return made


def default_output(name: str, preset: Preset, system: str) -> Path:
    """Where a run goes when nothing else is said.

    Args:
        name: The preset's name.
        preset: The resolved settings.
        system: What is trained.

    Returns:
        `runs/NAME[-SYSTEM]-kK-seedSEED`.
    """
    parts = [
        name,
        *([] if system == "vae" else [system]),
        f"k{preset.model.num_sources}",
        f"seed{preset.recipe.seed}",
    ]
    return Path("runs") / "-".join(parts)
