"""Sound: spectrograms, recordings on disk, and separation of recordings of any length."""
