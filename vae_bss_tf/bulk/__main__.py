"""Separates many files by an Apache Beam pipeline: `python -m vae_bss_tf.bulk --input ... --model ... --output ...`."""

import sys

from vae_bss_tf.bulk.command import main

if __name__ == "__main__":
    sys.exit(main())
