"""Export of live separators: files whose state is in the open, each proven equal to the model."""
