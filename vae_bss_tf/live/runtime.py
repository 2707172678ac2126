"""A live separator from its files, and any portions of sound through it."""

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vae_bss_tf.checks import check, check_choice, check_numbers
from vae_bss_tf.errors import CheckpointError, ConfigError, DataError
from vae_bss_tf.files import parse_json, sha256
from vae_bss_tf.live.config import LiveConfig
from vae_bss_tf.runtime.base import check_count, import_library, refusing_damage

Array = npt.NDArray[np.float32]
State = dict[str, Array]

KIND = "live"
MANIFEST = "manifest.json"
SIGNATURE = "step"
BLOCK, SOURCES, NEXT = "block", "sources", "next_"
_PREFERENCE = ("tflite_float32", "onnx_float32", "tflite_full_int8", "tflite_dynamic_int8", "tflite_float16")
_MOST_SAMPLE = 2.0**31


@dataclasses.dataclass(frozen=True)
class LiveModel:
    """A live separator's step.

    Attributes:
        path: Where it was loaded from.
        config: Its settings.
        zeros: The state before the first block, by name.
        run: One step: the block, float32 `[1, hop]`, and the state, to the sources, float32 `[1, num_sources, hop]`,
            and the next state.

    Example:
        >>> model = load("saved_models/live")
        >>> sources, state = model.run(np.zeros((1, 88), np.float32), model.zeros)
        >>> sources.shape, state.keys() == model.zeros.keys()
        ((1, 2, 88), True)
    """

    path: Path
    config: LiveConfig
    zeros: State
    run: Callable[[Array, State], tuple[Array, State]]


def load(path: Path | str, num_threads: int = 1) -> LiveModel:
    """Loads a live separator.

    Args:
        path: An export, one of its `.tflite` or `.onnx` files, or a finished run.
        num_threads: Threads of its runtime; one block is too little work for more than one.

    Returns:
        The model.

    Raises:
        CheckpointError: There is none, it is damaged, or its step is not that of its settings.
        ConfigError: It is no live separator, its runtime is not installed, or `num_threads` is no whole number above 0.

    Example:
        >>> model = load("saved_models/live")
        >>> model.config.latency_ms
        16.0
    """
    check(isinstance(path, (str, Path)), "path", path, "a path")
    check_count("num_threads", num_threads)
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"{path} is not there; give an export of python -m export.live, or one of its files.")
    if not path.is_dir() and not (path.parent / MANIFEST).is_file():
        raise CheckpointError(f"{path} has no {MANIFEST} beside it; give an export of python -m export.live.")
    with refusing_damage(path):
        is_run = path.is_dir() and not (path / MANIFEST).is_file()
        model = _of_run(path) if is_run else _of_export(path, num_threads)
        block = np.zeros((1, model.config.hop_length), np.float32)
        sources, state = model.run(block, model.zeros)  # the first step prepares what the runtime needs
        if sources.shape != (1, model.config.num_sources, block.size) or _shapes(state) != _shapes(model.zeros):
            raise ValueError("its outputs are not those of its settings")
    return model


def is_live(path: Path) -> bool:
    """Whether a folder holds a run or an export of a live separator.

    Args:
        path: The folder.
    """
    for name, key in ((MANIFEST, "kind"), ("config.json", "system")):
        try:
            return bool(parse_json((path / name).read_text(encoding="utf-8"))[key] == KIND)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return False


def _chosen(path: Path) -> tuple[Path, LiveConfig]:
    """The file of an export to load, checked against its manifest, and the model's settings."""
    folder = path if path.is_dir() else path.parent
    manifest = parse_json((folder / MANIFEST).read_text(encoding="utf-8"))
    if manifest.get("kind") != KIND:
        raise ConfigError(f"{folder} is no live separator; vae_bss_tf.separate takes it.")
    config, formats = LiveConfig.from_dict(manifest[KIND]), manifest["formats"]
    for name, entry in formats.items():
        check_choice("format", name, _PREFERENCE)
        if Path(entry["path"]).name != entry["path"]:
            raise CheckpointError(f"{folder / MANIFEST} names {entry['path']!r}, which is not in its folder.")
    if path.is_dir():
        chosen = next((name for name in _PREFERENCE if name in formats and _installed(name)), None)
        if chosen is None:
            raise ConfigError(f"{path}: no runtime of its files is installed; pip install 'vae-bss-tf[tflite]'.")
    else:
        chosen = next((name for name, entry in formats.items() if entry["path"] == path.name), None)
        if chosen is None:
            raise CheckpointError(f"{folder / MANIFEST} does not list {path.name}; copy the export again.")
    file = folder / formats[chosen]["path"]
    if not file.is_file() or sha256(file) != formats[chosen]["sha256"]:
        raise CheckpointError(f"{file} is not the file that {folder / MANIFEST} lists; copy the export again.")
    return file, config


class LiveSeparator:
    """Separates sound in portions of any length.

    Args:
        model: The model, as `load` gives it.

    Attributes:
        model: The model.
        num_sources: Sources of the model.
        delay: Samples by which what comes out is behind what went in, beside what waits for a block to fill.

    Example:
        >>> separator = LiveSeparator(load("saved_models/live"))
        >>> sources = separator.process(np.zeros(1000, np.float32))
        >>> sources.shape  # whole blocks of 88 samples
        (2, 968)
    """

    def __init__(self, model: LiveModel) -> None:
        self.model = model
        self.num_sources = model.config.num_sources
        self.delay = model.config.hop_length
        self.reset()

    def reset(self) -> None:
        """Forgets everything that was heard."""
        self._state = dict(self.model.zeros)
        self._waiting = np.zeros(0, np.float32)

    @property
    def state(self) -> State:
        """What the model remembers of the blocks so far, by name; set a copy of it to go on from there.

        Samples that wait for their block to fill are no part of it, and setting a state drops them.
        """
        return {name: value.copy() for name, value in self._state.items()}

    @state.setter
    def state(self, state: State) -> None:
        check(isinstance(state, dict), "state", state, "what `state` gave before")
        if _shapes(state) != _shapes(self.model.zeros):
            raise ConfigError(f"the state is not one of {self.model.path}: it is of another model.")
        if not all(np.isfinite(value).all() for value in state.values()):
            raise DataError("the state holds NaN or infinite values; begin with reset().")
        self._state = {name: np.array(state[name], np.float32) for name in self.model.zeros}
        self._waiting = np.zeros(0, np.float32)

    def process(self, samples: npt.ArrayLike) -> Array:
        """Separates the next samples.

        Args:
            samples: `[n]`, finite, in [-1, 1], at the model's rate; any number.

        Returns:
            float32 `[num_sources, m]`, where m is a whole number of blocks: all that are full. The sources sum to what
            went in `delay` samples before.

        Raises:
            DataError: A sample is no real number, not finite or beyond 2^31, or the shape is another. The state is as
                before.
        """
        array = _checked(samples)
        hop = self.model.config.hop_length
        waiting = np.concatenate([self._waiting, array])
        sources = [np.zeros((self.model.config.num_sources, 0), np.float32)]
        for first in range(0, len(waiting) - hop + 1, hop):
            separated, self._state = self.model.run(waiting[np.newaxis, first : first + hop], self._state)
            sources.append(separated[0])
        self._waiting = waiting[len(waiting) // hop * hop :]
        return np.concatenate(sources, axis=1)

    def separate(self, waveform: npt.ArrayLike, sample_rate: float) -> Array:
        """Separates a whole waveform of any rate, from a state of zeros on, and takes the delay out.

        Args:
            waveform: `[n]`, finite, in [-1, 1].
            sample_rate: Its rate, Hz.

        Returns:
            float32 `[num_sources, n]`, at the same rate. Above half the model's rate they hold nothing.

        Raises:
            DataError: As `process`, or the rate is outside 1 kHz to 1 MHz. The state is as before.
        """
        import soxr

        from vae_bss_tf.audio.recordings import check_rate

        check_rate(sample_rate, "the waveform")
        waveform = _checked(waveform)
        self.reset()
        own = soxr.resample(waveform, sample_rate, self.model.config.sample_rate)
        sources = np.concatenate([self.process(own), self.finish()], axis=1)[:, self.delay :]
        sources = soxr.resample(sources.T, self.model.config.sample_rate, sample_rate).T[:, : len(waveform)]
        return np.pad(sources, [(0, 0), (0, len(waveform) - sources.shape[1])])

    def finish(self) -> Array:
        """Separates what is left, as if silence followed.

        Returns:
            float32 `[num_sources, m]`: with all that came before, `delay` samples and as many as went in.
        """
        rest, hop = len(self._waiting), self.model.config.hop_length
        return self.process(np.zeros(2 * hop - rest, np.float32))[:, : rest + self.delay]


def _shapes(arrays: State) -> dict[str, tuple[int, ...]]:
    return {name: np.shape(value) for name, value in arrays.items()}


def _checked(samples: npt.ArrayLike) -> Array:
    given = check_numbers(samples, "samples")
    with np.errstate(over="ignore"):  # becomes infinite, which is refused below
        array = given.astype(np.float32)
    if array.ndim != 1:
        raise DataError(f"the samples have shape {array.shape}; give [n], one channel.")
    if len(array) and not np.abs(array).max() <= _MOST_SAMPLE:  # NaN included
        raise DataError("a block holds NaN, infinite or huge samples; leave it out.")
    return array


def _installed(name: str) -> bool:
    return importlib.util.find_spec("ai_edge_litert" if name.startswith("tflite") else "onnxruntime") is not None


def _of_export(path: Path, num_threads: int) -> LiveModel:
    file, config = _chosen(path)
    zeros = {name: np.zeros((1, *shape), np.float32) for name, shape in config.state_shapes.items()}
    run = _tflite(file, zeros, num_threads) if file.suffix == ".tflite" else _onnx(file, zeros, num_threads)
    return LiveModel(file, config, zeros, run)


def _of_run(path: Path) -> LiveModel:
    content = parse_json((path / "config.json").read_text(encoding="utf-8"))
    if content.get("system") != KIND:
        raise ConfigError(f"{path} is no live separator; vae_bss_tf.separate takes it.")
    config = LiveConfig.from_dict(content[KIND])
    tensorflow = import_library("tensorflow", "train")
    from vae_bss_tf.live.saved import load_weights

    model = load_weights(path / "weights.npz", config)
    step = tensorflow.function(lambda block, state: model.step(block, state), autograph=False)

    def run(block: Array, state: State) -> tuple[Array, State]:
        sources, new = step(tensorflow.constant(block), {n: tensorflow.constant(v) for n, v in state.items()})
        return sources.numpy(), {name: value.numpy() for name, value in new.items()}

    return LiveModel(path, config, model.initial_state(), run)


def _tflite(file: Path, zeros: State, num_threads: int) -> Callable[[Array, State], tuple[Array, State]]:
    library = import_library("ai_edge_litert.interpreter", "tflite")
    runner = library.Interpreter(model_content=file.read_bytes(), num_threads=num_threads).get_signature_runner(
        SIGNATURE
    )

    def run(block: Array, state: State) -> tuple[Array, State]:
        outputs = runner(**{BLOCK: block}, **state)
        return outputs[SOURCES], {name: outputs[NEXT + name] for name in zeros}

    return run


def _onnx(file: Path, zeros: State, num_threads: int) -> Callable[[Array, State], tuple[Array, State]]:
    onnxruntime = import_library("onnxruntime", "onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [SOURCES, *(NEXT + name for name in zeros)]

    def run(block: Array, state: State) -> tuple[Array, State]:
        sources, *new = session.run(names, {BLOCK: block, **state})
        return sources, dict(zip(zeros, new, strict=True))

    return run
