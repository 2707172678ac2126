"""Training and evaluation of separators: everything that only happens while learning."""
