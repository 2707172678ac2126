"""Training and evaluation of separators: everything that only happens while learning."""

import os

# TensorFlow prints its start-up notes, on GPUs that are not there too, before a command says its first word.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
