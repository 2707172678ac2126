"""The folder that an export is written to."""

from pathlib import Path

from vae_bss_tf.errors import OutputExistsError
from vae_bss_tf.live.runtime import is_live
from vae_bss_tf.runtime.manifest import MANIFEST


def check_target(target: Path, *, live: bool, force: bool) -> None:
    """Refuses a folder that an export must not replace.

    Args:
        target: The folder.
        live: Whether the export is of a live separator, which replaces no other, and which no other replaces.
        force: Whether an earlier export of this kind may be replaced.

    Raises:
        OutputExistsError: The folder holds something else, or an earlier export that may not be replaced.
    """
    if not target.exists():
        return
    if not (target / MANIFEST).is_file() or is_live(target) != live:
        kind = "a live separator" if live else "ours, or one of a live separator"
        raise OutputExistsError(f"{target} exists and is no export of {kind}; choose another --to.")
    if not force:
        raise OutputExistsError(f"{target} holds an earlier export; replace it by --force, or choose another --to.")
