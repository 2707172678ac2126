"""Sound: spectrograms, recordings on disk, and separation of recordings of any length."""

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif")
FORMATS = {"wav": "WAV", "flac": "FLAC", "ogg": "OGG", "mp3": "MP3", "aif": "AIFF"}  # as soundfile names them
