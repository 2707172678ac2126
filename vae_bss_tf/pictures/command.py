"""Separation of pictures on the command line; `vae_bss_tf.separate` is the command."""

import argparse
import collections
import glob
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from vae_bss_tf.errors import ConfigError, DataError
from vae_bss_tf.files import refuse_existing
from vae_bss_tf.pictures.reading import Picture, find, pictures_in
from vae_bss_tf.pictures.separator import PictureSeparator, places
from vae_bss_tf.runtime.remote.options import ServerOptions
from vae_bss_tf.startup import silenced

_OF_SOUND = ("format", "gains", "figure", "skip_silent", "allow_truncated")


def separate_pictures(options: argparse.Namespace, server: ServerOptions | None) -> None:
    """Separates the pictures that the command names.

    Args:
        options: As the command's parser gives them.
        server: Deadline and manifest for a model on a server; None takes the defaults.

    Raises:
        VaeBssError: A picture, the model or an option is bad, or a file to write exists.
    """
    for name in _OF_SOUND:
        if getattr(options, name):
            raise ConfigError(
                f"--{name.replace('_', '-')} is for recordings, and the model is one of images; leave it out."
            )
    pictures, unreadable = _pictures(_inputs(options.inputs, options.output))
    with silenced():
        separator = PictureSeparator.load(options.model, server)
    files = [places(picture, options.output, separator.num_sources) for picture in pictures]
    repeated = [names[0] for names, count in collections.Counter(map(tuple, files)).items() if count > 1]
    if repeated:
        raise DataError(
            f"several inputs would be written to {repeated[0]}; separate them one by one into folders of their own."
        )
    refuse_existing([file for names in files for file in names], force=options.force)
    print(f"model: {options.model}, {separator.num_sources} sources\nwriting to: {options.output}", flush=True)
    left_out = unreadable
    for picture in tqdm(pictures, "separating", unit="picture", disable=options.quiet or len(pictures) < 2):
        try:
            result = separator.separate_file(picture, options.output, force=options.force)
        except DataError as error:
            if len(pictures) == 1 and not unreadable:
                raise
            left_out += 1
            tqdm.write(f"left out: {error}", file=sys.stderr)
            continue
        height, width = result.size
        note = ", the middle of the picture at the model's size" if result.was_cut else ""
        tqdm.write(f"{picture.name}: {height}x{width}{note}")
        for file, share in zip(result.files, result.shares, strict=True):
            tqdm.write(f"  {file}  {100 * share:.0f} % of the brightness")
    if left_out:
        raise DataError(f"{left_out} of {len(pictures) + unreadable} pictures or arrays were left out; see above.")
    print(f"next: look at {options.output}")


def _pictures(paths: Sequence[Path]) -> tuple[list[Picture], int]:
    """The pictures of files, and how many arrays among these cannot be read."""
    pictures: list[Picture] = []
    unreadable = 0
    for path in paths:
        try:
            pictures += pictures_in(path)
        except DataError as error:
            if len(paths) == 1 or not path.exists():
                raise
            unreadable += 1
            print(f"left out: {error}", file=sys.stderr)
    return pictures, unreadable


def _inputs(given: Sequence[Path], output: Path) -> list[Path]:
    """The files that are named, those in folders, and those that match a pattern."""
    paths: list[Path] = []
    for path in given:
        if path.exists() or not glob.has_magic(str(path)):
            paths.append(path)
            continue
        matching = sorted(map(Path, glob.glob(str(path), recursive=True)))
        if not matching:
            raise DataError(f"no file matches {path}; check the pattern.")
        paths += matching
    for path in paths:
        if not path.exists():
            raise DataError(f"{path} is not there; name a picture, or a folder of them.")
    return [file for path in paths for file in (find(path, output=output) if path.is_dir() else [path])]
