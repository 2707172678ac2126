"""Pictures on disk: read and brought to a size, and separated into one picture for each source."""

ARRAY_SUFFIXES = (".npy", ".npz")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", *ARRAY_SUFFIXES)
