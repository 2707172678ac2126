"""`python -m export`: one command from a run to every format."""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from export.formats import FORMATS
from vae_bss_tf.errors import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: Its arguments; those of the process by default.

    Returns:
        The exit code: 0, or 2 for bad input, a format that fails its check included.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Ended from outside, it cleans up as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return run_command(lambda: _command(options, shlex.join(["python", "-m", "export", *arguments])))


def _command(options: argparse.Namespace, command: str) -> None:
    from export.pipeline import export_run

    manifest = export_run(
        options.run,
        options.to,
        names=options.formats,
        data_dir=options.data_dir,
        dynamic_batch=options.dynamic_batch,
        force=options.force,
        command=command,
    )
    megabytes = sum(entry["bytes"] for entry in manifest["formats"].values()) / 1e6
    print(f"wrote {options.to}: {len(manifest['formats'])} formats, {megabytes:.1f} MB, and its card, README.md")
    print(f"next: python -m export.benchmark {options.to}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description="Exports a run to SavedModel, TFLite and ONNX, and checks each file against the model.",
        epilog="example: python -m export --run runs/digits-k2-seed0 --to saved_models/digits",
    )
    parser.add_argument("--run", type=Path, required=True, help="folder of the run to export")
    parser.add_argument("--to", type=Path, required=True, help="folder to make")
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), metavar="FORMAT", help=", ".join(FORMATS))
    parser.add_argument("--data-dir", type=Path, help="folder of the data set's files; without it they are fetched")
    parser.add_argument("--dynamic-batch", action="store_true", help="TFLite files that take any number of mixtures")
    parser.add_argument("--force", action="store_true", help="replace an earlier export")
    return parser


if __name__ == "__main__":
    sys.exit(main())
