"""Models in files: a run, a SavedModel, a `.tflite`, an `.onnx`; all may be called from several threads."""

import contextlib
import os
import queue
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vae_bss_tf.config import Preset
from vae_bss_tf.errors import CheckpointError
from vae_bss_tf.runtime.base import (
    INPUT,
    SIGNATURE,
    Array,
    LoadedModel,
    ModelMetadata,
    import_library,
    make_metadata,
    refusing_damage,
)


class _TensorFlowModel(LoadedModel):
    _function: Any  # a traced function: TensorFlow runs it in any thread
    _constant: Any

    def _run(self, mixtures: Array, names: Sequence[str]) -> Mapping[str, Array]:
        outputs = self._function(**{INPUT: self._constant(mixtures)})
        return {name: outputs[name].numpy() for name in names}


class KerasRun(_TensorFlowModel):
    """The `model.keras` of a run folder. It is traced once, for any batch size; TensorFlow runs it in any thread.

    Args:
        path: The run folder.

    Raises:
        CheckpointError: The run is damaged, unfinished, or not of the multi-source VAE.

    Example:
        >>> KerasRun(Path("runs/mnist-k2-seed0")).metadata.format
        'keras'
    """

    def __init__(self, path: Path) -> None:
        tensorflow = import_library("tensorflow", "train")
        from vae_bss_tf.model import MultiSourceVAE
        from vae_bss_tf.saved import load_keras_model, read_settings

        with refusing_damage(path, passing=CheckpointError):
            preset = Preset.from_dict(read_settings(path))
            if not (path / "model.keras").is_file():
                raise CheckpointError(f"{path} has no model.keras; end its training first.")
            self._model = load_keras_model(path / "model.keras", preset.model)
            if not isinstance(self._model, MultiSourceVAE):
                raise CheckpointError(f"{path} holds a {type(self._model).__name__}; give a run of the VAE or the AE.")
            config = preset.model
            self._function = tensorflow.function(
                lambda mixture: self._model({INPUT: mixture}, training=False),
                input_signature=[tensorflow.TensorSpec((None, *config.input_shape), tensorflow.float32, INPUT)],
            ).get_concrete_function()
        self._constant = tensorflow.constant
        self.metadata = ModelMetadata("keras", path, config.input_shape, config.num_sources, config.latent_dim, preset)


class SavedModel(_TensorFlowModel):
    """A folder with a `saved_model.pb`; TensorFlow runs its functions in any thread.

    Args:
        path: The folder.
        preset: Its settings, where they are known.
        trust: Whether a graph is loaded without a check of its operations.

    Raises:
        CheckpointError: It is damaged, not ours, or holds an operation that no export of ours has.

    Example:
        >>> SavedModel(Path("exported/mnist/saved_model/1"), None, trust=False).metadata.format
        'saved_model'
    """

    def __init__(self, path: Path, preset: Preset | None, *, trust: bool) -> None:
        tensorflow = import_library("tensorflow", "train")
        from vae_bss_tf.runtime.trusted import check_operations

        with refusing_damage(path):
            if not trust:
                check_operations(path)
            self._loaded = tensorflow.saved_model.load(str(path))
            self._function = self._loaded.signatures[SIGNATURE]
            _, keywords = self._function.structured_input_signature
            self.metadata = make_metadata(
                "saved_model",
                path,
                keywords[INPUT].shape.as_list(),
                {name: spec.shape.as_list() for name, spec in self._function.structured_outputs.items()},
                preset,
            )
        self._constant = tensorflow.constant


class TFLiteModel(LoadedModel):
    """A `.tflite` file under LiteRT; one of fixed shape takes its mixtures one at a time.

    LiteRT's interpreters hold the values of one call. Each simultaneous call has an interpreter of its own, which is
    made when it is first needed and kept; there are at most as many as the machine has cores, and further calls wait.

    Args:
        path: The file.
        preset: Its settings, where they are known.
        num_threads: Threads of each interpreter; None leaves it to LiteRT.

    Raises:
        CheckpointError: It is damaged or not ours.

    Example:
        >>> TFLiteModel(Path("exported/mnist/float32.tflite"), None, num_threads=1).metadata.format
        'tflite'
    """

    def __init__(self, path: Path, preset: Preset | None, num_threads: int | None) -> None:
        self._library = import_library("ai_edge_litert.interpreter", "tflite")
        with refusing_damage(path):
            # Every interpreter reads this content: a file that is replaced later does not mix two models.
            self._options = {"model_content": path.read_bytes(), "num_threads": num_threads}
            runner = self._make_runner()
            details = runner.get_input_details()[INPUT]
            self.metadata = make_metadata(
                "tflite",
                path,
                details["shape_signature"].tolist(),
                {name: d["shape_signature"].tolist() for name, d in runner.get_output_details().items()},
                preset,
            )
        self._fixed = bool(details["shape_signature"][0] == 1)
        self._idle: queue.LifoQueue[Any] = queue.LifoQueue()
        for _ in range((os.cpu_count() or 1) - 1):
            self._idle.put(None)
        self._idle.put(runner)

    def _run(self, mixtures: Array, names: Sequence[str]) -> Mapping[str, Array]:
        with self._borrowed_runner() as run:
            if not self._fixed:
                return run(**{INPUT: mixtures})
            parts = [run(**{INPUT: mixtures[i : i + 1]}) for i in range(len(mixtures))]
        return {name: np.concatenate([part[name] for part in parts]) for name in names}

    def _make_runner(self) -> Any:
        return self._library.Interpreter(**self._options).get_signature_runner(SIGNATURE)

    @contextlib.contextmanager
    def _borrowed_runner(self) -> Iterator[Any]:
        runner = self._idle.get()
        try:
            if runner is None:
                runner = self._make_runner()
            yield runner
        finally:
            self._idle.put(runner)


class OnnxModel(LoadedModel):
    """An `.onnx` file under onnxruntime, on the CPU; its sessions run in any thread.

    Args:
        path: The file.
        preset: Its settings, where they are known.
        num_threads: Threads of one call; None leaves it to onnxruntime.

    Raises:
        CheckpointError: It is damaged or not ours.

    Example:
        >>> OnnxModel(Path("exported/mnist/float32.onnx"), None, num_threads=1).metadata.format
        'onnx'
    """

    def __init__(self, path: Path, preset: Preset | None, num_threads: int | None) -> None:
        onnxruntime = import_library("onnxruntime", "onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads or 0
        with refusing_damage(path):
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            inputs = {value.name: value.shape for value in self._session.get_inputs()}
            outputs = {value.name: value.shape for value in self._session.get_outputs()}
            self.metadata = make_metadata("onnx", path, inputs[INPUT], outputs, preset)

    def _run(self, mixtures: Array, names: Sequence[str]) -> Mapping[str, Array]:
        return dict(zip(names, self._session.run(names, {INPUT: mixtures}), strict=True))
