"""Runs one exported file in its own runtime, in a process of its own, and times it.

Started as `python -I run_file.py FILE THREADS`: isolated, with nothing of this project imported (a run folder, for
the benchmark's Keras rows, is the exception). Commands come as lines of JSON on stdin, each answered by one line:

    {"do": "outputs", "mixtures": "in.npy", "to": "out.npz"}   every output for every mixture, float32
    {"do": "one", "calls": 100}                                seconds of each call with one mixture
    {"do": "batch", "calls": 10}                               seconds of each call with 32 mixtures
    {"do": "memory"}                                           peak memory of the process, bytes
"""

import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
Run = Callable[[np.ndarray], Arrays]

BATCH = 32


def load_tflite(path: str, threads: int) -> tuple[Run, list[int]]:
    """Loads a `.tflite` file; one of fixed shape runs a batch as single mixtures."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=path, num_threads=threads).get_signature_runner("separate")
    shape = runner.get_input_details()["mixture"]["shape_signature"].tolist()

    def run(mixtures: np.ndarray) -> Arrays:
        if shape[0] != 1 or len(mixtures) == 1:
            return runner(mixture=mixtures)
        singles = [runner(mixture=mixtures[i : i + 1]) for i in range(len(mixtures))]
        return {name: np.concatenate([single[name] for single in singles]) for name in singles[0]}

    return run, shape[1:]


def load_onnx(path: str, threads: int) -> tuple[Run, list[int]]:
    """Loads an `.onnx` file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    shapes = {value.name: value.shape for value in session.get_inputs()}

    def run(mixtures: np.ndarray) -> Arrays:
        return dict(zip(names, session.run(names, {"mixture": mixtures}), strict=True))

    return run, shapes["mixture"][1:]


def load_saved_model(path: str, threads: int) -> tuple[Run, list[int]]:
    """Loads a SavedModel with TensorFlow alone."""
    tensorflow = _tensorflow(threads)
    loaded = tensorflow.saved_model.load(path)
    function = loaded.signatures["separate"]
    shape = function.structured_input_signature[1]["mixture"].shape.as_list()

    def run(mixtures: np.ndarray) -> Arrays:
        # `loaded` is named so that the weights live as long as the function.
        assert loaded is not None
        return {name: value.numpy() for name, value in function(mixture=tensorflow.constant(mixtures)).items()}

    return run, shape[1:]


def load_keras(path: str, threads: int, compiled: bool) -> tuple[Run, list[int]]:
    """Loads a run's Keras model; `compiled` runs its `predict_on_batch`, else it is called as a function."""
    _tensorflow(threads)
    sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..")))
    from training import run as runs

    model = runs.Run.load(path).model()
    model.compile()

    def run(mixtures: np.ndarray) -> Arrays:
        if compiled:
            return model.predict_on_batch({"mixture": mixtures})
        return {name: np.asarray(value) for name, value in model({"mixture": mixtures}).items()}

    return run, list(model.config.input_shape)


def load(path: str, threads: int) -> tuple[Run, list[int]]:
    """Loads a file by its suffix; a run folder is named `keras_predict:PATH` or `keras_call:PATH`."""
    if path.startswith("keras_"):
        kind, _, folder = path.partition(":")
        return load_keras(folder, threads, compiled=kind == "keras_predict")
    if path.endswith(".tflite"):
        return load_tflite(path, threads)
    if path.endswith(".onnx"):
        return load_onnx(path, threads)
    return load_saved_model(path, threads)


def peak_memory() -> int:
    """Peak resident memory of this process in bytes."""
    try:
        with open("/proc/self/status") as status:
            match = re.search(r"VmHWM:\s+(\d+) kB", status.read())
    except OSError:
        match = None
    return 1024 * (int(match[1]) if match else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def main() -> None:
    """Loads the file, says how long that took, and answers commands until stdin ends."""
    path, threads = sys.argv[1], int(sys.argv[2])
    start = time.perf_counter()
    run, shape = load(path, threads)
    single = np.random.default_rng(0).random((1, *shape), np.float32)
    run(single)
    _answer({"load_seconds": time.perf_counter() - start})
    batch = np.random.default_rng(0).random((BATCH, *shape), np.float32)
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "outputs":
            outputs: dict[str, Any] = {**run(np.load(command["mixtures"]))}
            np.savez(command["to"], **outputs)
            ours = sorted(name for name in sys.modules if name.split(".")[0] in ("vae_bss_tf", "export", "training"))
            _answer({"imported": ours})
        elif command["do"] == "memory":
            _answer({"bytes": peak_memory()})
        else:
            _answer({"seconds": _time(run, single if command["do"] == "one" else batch, command["calls"])})


def _time(run: Run, mixtures: np.ndarray, calls: int) -> list[float]:
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        run(mixtures)
        seconds.append(time.perf_counter() - start)
    return seconds


def _answer(message: dict[str, object]) -> None:
    print(json.dumps(message), file=_REPLIES, flush=True)


def _tensorflow(threads: int) -> Any:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow

    tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
    tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    return tensorflow


if __name__ == "__main__":
    # Libraries print on stdout; the replies keep a descriptor of their own.
    _REPLIES = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    main()
