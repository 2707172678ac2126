"""What a preset goes on from: runs of the presets before it, trained first where they are missing."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vae_bss_tf.config import BEGUN_FROM, Preset, get_preset
from vae_bss_tf.errors import CheckpointError, ConfigError, OutputExistsError

if TYPE_CHECKING:
    from training.run import Run


class Stage(NamedTuple):
    """A run that is to be trained.

    Attributes:
        name: The preset's name.
        path: The run folder.
        preset: The settings.
        begun: Whether the run is there and gone on with.
    """

    name: str
    path: Path
    preset: Preset
    begun: bool


def default_output(name: str, preset: Preset, system: str = "vae", folder: Path = Path("runs")) -> Path:
    """Where a run goes when nothing else is said.

    Args:
        name: The preset's name.
        preset: The resolved settings.
        system: What is trained.
        folder: Folder of run folders.

    Returns:
        `folder/NAME[-SYSTEM]-kK-seedSEED`, without K where the name says it.
    """
    num_sources = preset.model.num_sources
    parts = [
        name,
        *([] if system == "vae" else [system]),
        *([] if name.endswith(f"-k{num_sources}") else [f"k{num_sources}"]),
        f"seed{preset.train.seed}",
    ]
    return folder / "-".join(parts)


def plan(name: str, preset: Preset, output: Path) -> tuple[Path | None, list[Stage]]:
    """Finds what must be trained before a run of a preset. Nothing is written.

    The runs stand in the folder of `output`, under their default names, with its seed, precision and use of XLA. A
    finished one is begun from, however long it was trained.

    Args:
        name: The preset's name, a key of `BEGUN_FROM`.
        preset: Its resolved settings.
        output: The run folder to be.

    Returns:
        The finished run that the first of them begins with, None where it begins anew or has a backup; and what is to
        be trained, the first one first. Without any, the run begins with that finished one.

    Raises:
        ConfigError: The model or the data are not the preset's own; or the run of an earlier preset has others, or
            would be `output`.
        CheckpointError: An earlier run cannot be read, or gone on with.
        OutputExistsError: Something else stands where an earlier run goes.
    """
    from training import backup

    if _of_network(preset) != _of_network(get_preset(name)):
        raise ConfigError(
            f"what {name} begins with is trained with the presets' own model and data; with others, begin with a run "
            "of yours: --init RUN."
        )
    stages: list[Stage] = []
    later = name
    while later in BEGUN_FROM:
        earlier = BEGUN_FROM[later]
        wanted = _like(preset, get_preset(earlier))
        path = default_output(earlier, wanted, folder=output.parent)
        if path.resolve() == output.resolve():
            raise ConfigError(f"{output} is where the run of {earlier} goes that {name} begins with; use another.")
        begun = _begun(path, wanted, later)
        if begun is not None and begun.metrics:
            print(f"{later} begins with {path}, which is finished after {begun.preset.train.epochs} epochs", flush=True)
            return path, stages[::-1]
        stages.append(Stage(earlier, path, wanted if begun is None else begun.preset, begun is not None))
        if begun is not None and backup.has_state(path / "backup"):
            break
        later = earlier
    return None, stages[::-1]


def _of_network(preset: Preset) -> tuple[object, ...]:
    return preset.model, preset.data, preset.audio


def _like(preset: Preset, earlier: Preset) -> Preset:
    """An earlier preset with the seed of a later one and what it asks of the machine."""
    train = preset.train
    changed = earlier.train.replace(
        seed=train.seed, jit_compile=train.jit_compile, mixed_precision=train.mixed_precision
    )
    return dataclasses.replace(earlier, train=changed)


def _begun(path: Path, wanted: Preset, later: str) -> "Run | None":
    """The run of an earlier preset, finished or not; None where there is none."""
    from training import backup
    from training.run import Run

    if not (path / "config.json").is_file():
        try:
            Run.check_new(path, force=False)
        except OutputExistsError as error:
            raise OutputExistsError(
                f"{path}, where {later} looks for the run that it begins with, is no run; name one by --init."
            ) from error
        return None
    run = Run.load(path)
    if run.system != "vae" or _of_network(run.preset) != _of_network(wanted):
        raise ConfigError(
            f"{path} has another model or other data than {later} begins with; name the run that it is to begin with: "
            "--init RUN."
        )
    before = BEGUN_FROM.get(BEGUN_FROM[later])
    init = None if before is None else default_output(before, _like(wanted, get_preset(before))).name
    if not (run.metrics or backup.has_state(path / "backup")) and run.init != init:
        raise CheckpointError(f"{path} was killed before its first backup; begin it again by its own command.")
    return run
