"""`python -m export.serving`: from exports to the folder that an operator copies and TensorFlow Serving serves."""

import argparse
import os
import re
import signal
import sys

from export.deployment.files import MODELS, MODELS_CONFIG
from export.deployment.folder import ServedExport, add_versions, make, move_label
from vae_bss_tf.arguments import Parser, command, path
from vae_bss_tf.errors import ConfigError

_CPUS = 2


def _command(options: argparse.Namespace) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Ended from outside, it cleans up as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = options.to
    moved = options.promote or options.canary
    if options.cpus is not None and (moved or options.add_version):
        raise ConfigError("--cpus sizes a deployment when it is made; leave it out, or make it again with --force.")
    if moved:
        if options.version is not None or options.data_dir is not None:
            raise ConfigError("--version and --data-dir are for new versions; leave them out.")
        if options.exports:
            raise ConfigError("--promote and --canary move labels and take no export; add versions by --add-version.")
        name, version = moved
        models = move_label(folder, name, _number(version), promote=bool(options.promote))
    else:
        if not options.exports:
            raise ConfigError("nothing to serve; name the folders that python -m export has made.")
        exports = [ServedExport.read(text) for text in options.exports]
        version = None if options.version is None else _number(options.version)
        if options.add_version:
            models = add_versions(exports, folder, version=version, data_dir=options.data_dir)
        else:
            models = make(
                exports,
                folder,
                version=version,
                data_dir=options.data_dir,
                cpus=options.cpus or _CPUS,
                force=options.force,
            )
    for name, versions in models.items():
        labels = ", ".join(f"{label} {version}" for label, version in versions.labels.items())
        print(f"{name}: {labels}; loaded: {', '.join(map(str, versions.loaded))}")
    print(f"wrote {folder}")
    print(f"next: docker compose -f {folder}/docker-compose.yml up -d, or for development:")
    print(f"      python -m export.serve --models-config {folder / MODELS_CONFIG} --models-root {folder / MODELS}")


def _number(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,17}", text):
        raise ConfigError(f"{text!r} is no version; a version is a whole number from 1 on.")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m export.serving",
        description="Makes and updates the folder that TensorFlow Serving serves.",
        epilog="example: python -m export.serving exported/mnist --to serving",
    )
    parser.add_argument("exports", nargs="*", metavar="EXPORT", help="folder of an export, or NAME=FOLDER")
    parser.add_argument("--to", type=path, required=True, help="the deployment folder")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--add-version", action="store_true", help="add the exports to the folder, as canary")
    action.add_argument("--promote", nargs=2, metavar=("NAME", "VERSION"), help="make a loaded version the stable one")
    action.add_argument("--canary", nargs=2, metavar=("NAME", "VERSION"), help="put a version of the folder on trial")
    action.add_argument("--force", action="store_true", help="replace an earlier deployment")
    parser.add_argument("--version", help="number of the version (default: 1, or the next)")
    parser.add_argument("--data-dir", type=path, help="folder of the data set's files, for the warm-up requests")
    parser.add_argument(
        "--cpus",
        type=int,
        choices=range(1, 257),
        metavar="N",
        help=f"processors of the server (default: {_CPUS})",
    )
    return parser


main = command(_parser, _command)


if __name__ == "__main__":
    sys.exit(main())
