"""Pictures on disk: read and brought to a size, and separated into one picture for each source."""
