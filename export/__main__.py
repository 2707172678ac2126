"""`python -m export`: one command from a run to every format; it fails where one of them fails its check."""

import argparse
import shlex
import signal
import sys

from export.formats import FORMATS
from vae_bss_tf.arguments import Parser, command, path
from vae_bss_tf.startup import import_tensorflow


def _command(options: argparse.Namespace) -> None:
    # Ended from outside, it cleans up as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    import_tensorflow()
    from export.pipeline import export_run

    manifest = export_run(
        options.run,
        options.to,
        names=options.formats,
        data_dir=options.data_dir,
        dynamic_batch=options.dynamic_batch,
        force=options.force,
        command=_written_down(options),
        data_licence=options.data_licence,
    )
    megabytes = sum(entry["bytes"] for entry in manifest["formats"].values()) / 1e6
    print(f"wrote {options.to}: {len(manifest['formats'])} formats, {megabytes:.1f} MB, and its card, README.md")
    print(f"next: python -m export.benchmark {options.to}")


def _written_down(options: argparse.Namespace) -> str:
    """The command for the manifest, which has the licence of the data elsewhere, and the data's place nowhere."""
    words = ["python", "-m", "export", "--run", str(options.run), "--to", str(options.to)]
    if options.formats:
        words += ["--formats", *options.formats]
    if options.data_dir:
        words += ["--data-dir", "DIR"]
    if options.dynamic_batch:
        words += ["--dynamic-batch"]
    if options.data_licence:
        words += ["--data-licence", "TEXT"]
    return shlex.join(words)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m export",
        description="Exports a run to SavedModel, TFLite and ONNX, and checks each file against the model.",
        epilog="example: python -m export --run runs/digits-k2-seed0 --to saved_models/digits",
    )
    parser.add_argument("--run", type=path, required=True, help="folder of the run to export")
    parser.add_argument("--to", type=path, required=True, help="folder to make")
    parser.add_argument("--formats", nargs="+", metavar="FORMAT", help="of " + ", ".join(FORMATS) + " (default: all)")
    parser.add_argument("--data-dir", type=path, help="folder of the data set's files; without it they are fetched")
    parser.add_argument(
        "--data-licence",
        metavar="TEXT",
        help="licence of the training data, for the card (default: that of the data set where it is known)",
    )
    parser.add_argument("--dynamic-batch", action="store_true", help="TFLite files that take any number of mixtures")
    parser.add_argument("--force", action="store_true", help="replace an earlier export")
    return parser


main = command(_parser, _command)


if __name__ == "__main__":
    sys.exit(main())
