"""The gate: every exported file, loaded in a process of its own, must equal the model."""
