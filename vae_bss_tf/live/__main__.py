"""Separates sound as it comes: `python -m vae_bss_tf.live --model saved_models/live`."""

import argparse
import sys

from vae_bss_tf.arguments import Parser, command, path


def _command(options: argparse.Namespace) -> None:
    from vae_bss_tf.live.command import separate_live

    separate_live(options)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m vae_bss_tf.live",
        description="Separates sound while it comes. Without --input, from the microphone to the headphones; with it, "
        "a recording or a pipe of raw samples as the microphone, and files or a pipe for the sources.",
        epilog="examples: python -m vae_bss_tf.live --model saved_models/live --gains 0,-inf; "
        "arecord -f S16_LE -r 16000 -t raw | python -m vae_bss_tf.live --model saved_models/live --input - "
        "--rate 16000 --output separated",
    )
    parser.add_argument(
        "--model", type=path, help="a live separator: an export, one of its files, or a run of training.live"
    )
    parser.add_argument(
        "--input", type=path, metavar="FILE", help="a recording, or - for raw samples on standard input"
    )
    parser.add_argument(
        "--output", type=path, metavar="DIR", help="folder for NAME_sourceK.wav, or - for raw interleaved samples"
    )
    parser.add_argument("--gains", metavar="DB,DB,...", help="a gain for each source in what is heard, such as 0,-inf")
    parser.add_argument("--rate", type=float, default=16_000.0, help="of raw samples, Hz (default: 16000)")
    parser.add_argument("--sample-format", choices=("s16", "f32"), default="s16", help="of raw samples, little-endian")
    parser.add_argument("--list-devices", action="store_true", help="list microphones and headphones, and end")
    parser.add_argument("--input-device", metavar="DEVICE", help="number or name of the microphone")
    parser.add_argument("--output-device", metavar="DEVICE", help="number or name of the headphones")
    parser.add_argument("--seconds", type=float, help="end after as many seconds of the microphone")
    parser.add_argument("--force", action="store_true", help="replace existing files")
    parser.add_argument("--quiet", action="store_true", help="no level meters")
    return parser


main = command(_parser, _command, signed=["--gains"])


if __name__ == "__main__":
    sys.exit(main())
