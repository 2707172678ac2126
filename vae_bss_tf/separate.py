"""Separates recordings and pictures: `python -m vae_bss_tf.separate duet.wav --model MODEL --output FOLDER`."""

import argparse
import sys
from pathlib import Path

from vae_bss_tf import audio, pictures
from vae_bss_tf.arguments import Parser, command, given, path
from vae_bss_tf.files import files_under
from vae_bss_tf.runtime.loading import described
from vae_bss_tf.runtime.manifest import MANIFEST
from vae_bss_tf.runtime.remote.options import ServerOptions
from vae_bss_tf.startup import import_tensorflow


def _command(options: argparse.Namespace) -> None:
    folder = Path(options.model)
    if (folder / "config.json").is_file() and not (folder / MANIFEST).is_file():  # a run, no export
        import_tensorflow()
    # Each kind needs libraries of its own, and those of the other may be missing.
    if _separates_pictures(options):
        from vae_bss_tf.pictures.command import separate_pictures as separate
    else:
        from vae_bss_tf.audio.command import separate_recordings as separate
    separate(options, _server_options(options))


def _separates_pictures(options: argparse.Namespace) -> bool:
    """Whether the model is one of images, by its settings or, where it comes without them, by what it is given."""
    preset = described(options.manifest or options.model)
    if preset is not None:
        return preset.audio is None
    # Recordings may have the picture of a cover beside them.
    found = [_holds(path, audio.SUFFIXES) for path in options.inputs]
    return not any(found) and any(_holds(path, pictures.SUFFIXES) for path in options.inputs)


def _holds(path: Path, suffixes: tuple[str, ...]) -> bool:
    return bool(files_under(path, suffixes)) if path.is_dir() else path.suffix.lower() in suffixes


def _server_options(options: argparse.Namespace) -> ServerOptions | None:
    values = given(options, ("deadline", "manifest"))
    return ServerOptions(**values) if values else None


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m vae_bss_tf.separate",
        description="Separates recordings of any length, or pictures, into one file for each source.",
        epilog="examples: python -m vae_bss_tf.separate duet.wav --model runs/notes-k2-seed0 --output stems; "
        "python -m vae_bss_tf.separate overlay.png --model runs/images-k2-seed0 --output separated",
    )
    parser.add_argument("inputs", nargs="+", type=path, help="recordings or pictures, or folders of them")
    parser.add_argument(
        "--model",
        required=True,
        help="run folder or exported model, which says whether it is of sound or of images, or one on a server: "
        "grpc://HOST:8500/NAME, "
        "http://HOST:8501/v1/models/NAME",
    )
    parser.add_argument("--deadline", type=float, metavar="SECONDS", help="of each request to a server (default: 60)")
    parser.add_argument("--manifest", type=path, help="manifest.json of the export that the server must be serving")
    parser.add_argument("--output", required=True, type=path, help="folder to write {name}_source{k} files to")
    parser.add_argument(
        "--format", choices=audio.FORMATS, help="format of the sound files (default: the recording's own)"
    )
    parser.add_argument(
        "--gains",
        metavar="DB,DB,...",
        help="also write a remix with these gains, one for each source, such as 0,-6,-inf",
    )
    parser.add_argument("--figure", action="store_true", help="also write spectrograms of the first 30 s as a PNG")
    parser.add_argument("--skip-silent", action="store_true", help="leave out sources 40 dB below the recording")
    parser.add_argument(
        "--allow-truncated",
        action="store_true",
        help="separate what is there of a truncated WAV, AIFF or Ogg file",
    )
    parser.add_argument("--force", action="store_true", help="replace existing files")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


main = command(_parser, _command, signed=["--gains"])


if __name__ == "__main__":
    sys.exit(main())
