"""Separation of many files by an Apache Beam pipeline; `python -m vae_bss_tf.bulk` is the command."""
