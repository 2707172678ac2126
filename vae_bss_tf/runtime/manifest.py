"""The `manifest.json` of an export: reading it, choosing one of its files, checking a file against it."""

import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vae_bss_tf.config import Preset
from vae_bss_tf.errors import CheckpointError, ConfigError
from vae_bss_tf.files import parse_json, sha256
from vae_bss_tf.runtime.base import refusing_damage

MANIFEST = "manifest.json"

# The file that is loaded for an export folder: the most exact one whose runtime is installed.
_PREFERENCE = (
    "onnx_float32",
    "tflite_float32",
    "saved_model",
    "tflite_float16",
    "onnx_int8",
    "tflite_dynamic_int8",
    "tflite_full_int8",
)
_LIBRARIES = {"onnx": "onnxruntime", "tflite": "ai_edge_litert", "saved": "tensorflow"}
_EXTRAS = {"onnx": "onnx", "tflite": "tflite", "saved": "train"}
_DIGEST = re.compile("[0-9a-f]{64}")
_ADDED_LATER = "assets.extra"  # holds the requests that warm a server up; no runtime of ours reads it


def read_manifest(path: Path) -> dict[str, Any]:
    """Reads the `manifest.json` of an export.

    Args:
        path: The file.

    Returns:
        Its content. Each entry of `formats` has a `path` and, in `files`, the SHA-256 of at least one file.

    Raises:
        CheckpointError: It is missing, damaged, or another kind of file.
        ConfigError: It is of a live separator.
    """
    with refusing_damage(path):
        manifest = parse_json(path.read_text(encoding="utf-8"))
        if isinstance(manifest, dict) and manifest.get("kind") == "live":
            raise ConfigError(f"{path.parent} is a live separator: python -m vae_bss_tf.live takes it.")
        if not isinstance(manifest, dict) or not isinstance(manifest.get("formats"), dict) or not manifest["formats"]:
            raise ValueError("it lists no formats")
        for name, entry in manifest["formats"].items():
            if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
                raise ValueError(f"{name} has no path")
            files = entry.get("files")
            if not isinstance(files, dict) or not files:
                raise ValueError(f"{name} lists no files")
            for file, described in files.items():
                if not isinstance(described, dict) or not _DIGEST.fullmatch(str(described.get("sha256"))):
                    raise ValueError(f"{file} has no SHA-256")
        return manifest


def choose(folder: Path) -> Path:
    """Returns the most exact file of an export folder whose runtime is installed.

    Raises:
        CheckpointError: The manifest is damaged, or names a file outside of the folder.
        ConfigError: No runtime of its files is installed.
    """
    formats = read_manifest(folder / MANIFEST)["formats"]
    for name in _PREFERENCE:
        if name in formats and importlib.util.find_spec(_LIBRARIES[name.split("_")[0]]):
            _inside(folder, formats[name]["path"])
            return folder / formats[name]["path"]
    if not set(formats) & set(_PREFERENCE):
        raise ConfigError(
            f"{folder} holds {', '.join(formats)} alone, which take waveforms; export the run with a format that takes "
            "mixtures, such as --formats tflite_float32."
        )
    extras = sorted({_EXTRAS[name.split("_")[0]] for name in set(formats) & set(_PREFERENCE)})
    named = " or ".join(f"'vae-bss-tf[{extra}]'" for extra in extras)
    raise ConfigError(
        f"{folder} holds {', '.join(formats)}, and the runtime of none is installed; pip install {named}."
    )


def check_file(path: Path) -> Preset | None:
    """Checks a file or SavedModel against the manifest of the export that it belongs to.

    The manifest is searched for from the path as given and from the real path, links resolved.

    Args:
        path: The file, or the folder of a SavedModel.

    Returns:
        The settings in the manifest; None where there is no manifest.

    Raises:
        CheckpointError: The manifest is damaged, does not list the file, or names one outside of its folder; or a
            file is missing, unlisted or differs from its checksum.
        ConfigError: The manifest is of a live separator.
    """
    with refusing_damage(path):
        real = path.resolve()
        for place in dict.fromkeys((Path(os.path.abspath(path)), real)):
            for folder in place.parents[: 2 if real.is_dir() else 1]:
                if (folder / MANIFEST).is_file():
                    manifest = read_manifest(folder / MANIFEST)
                    with refusing_damage(path, passing=CheckpointError):
                        _check_files(folder, manifest["formats"], real)
                        return Preset.from_dict(manifest["preset"])
    return None


def checked_manifest(folder: Path) -> dict[str, Any]:
    """Reads the manifest of an export and checks every file that it lists.

    Args:
        folder: The export.

    Returns:
        The manifest, as `read_manifest` gives it.

    Raises:
        CheckpointError: As `check_file`.
    """
    manifest = read_manifest(folder / MANIFEST)
    with refusing_damage(folder / MANIFEST, passing=CheckpointError):
        for entry in manifest["formats"].values():
            _check_files(folder, manifest["formats"], _inside(folder, entry["path"]))
    return manifest


def _check_files(folder: Path, formats: Mapping[str, Any], real: Path) -> None:
    entry = next((e for e in formats.values() if _inside(folder, e["path"]) == real), None)
    if entry is None:
        raise CheckpointError(f"{folder / MANIFEST} does not list {real}; load it from a folder of its own.")
    listed = {_inside(folder, name): file["sha256"] for name, file in entry["files"].items()}
    for file, digest in listed.items():
        if not file.is_file() or sha256(file) != digest:
            raise CheckpointError(f"{file} is not the file that {folder / MANIFEST} lists; copy it again.")
    found = [file for file in real.rglob("*") if not file.is_dir()] if real.is_dir() else [real]
    unlisted = [f for f in found if f.resolve() not in listed and f.relative_to(real).parts[:1] != (_ADDED_LATER,)]
    if unlisted:
        raise CheckpointError(f"{folder / MANIFEST} does not list {unlisted[0]}; remove it, or copy the export again.")


def _inside(folder: Path, name: str) -> Path:
    """The real path of a file that a manifest names."""
    place = (folder / name).resolve()
    if folder.resolve() not in place.parents:
        raise CheckpointError(f"{folder / MANIFEST} names {name!r}, which is not in its folder; do not trust it.")
    return place
