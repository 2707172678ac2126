"""One interface over runs, SavedModels, TFLite and ONNX files and model servers: the same names, the same arrays.

    model = load("saved_models/mnist")
    model = load("http://127.0.0.1:8501/v1/models/mnist")
    sources = model.separate(mixture)

TensorFlow is imported for a run, a SavedModel and a server that speaks gRPC. A `.tflite` needs ai-edge-litert and
NumPy, an `.onnx` needs onnxruntime and NumPy, a server that speaks HTTP needs NumPy alone.
"""

from vae_bss_tf.runtime.base import INPUT, OUTPUTS, SETTINGS, SIGNATURE, LoadedModel, ModelMetadata, import_library
from vae_bss_tf.runtime.loading import is_url, load
from vae_bss_tf.runtime.manifest import MANIFEST, read_manifest
from vae_bss_tf.runtime.remote import ServerOptions

__all__ = [
    "INPUT",
    "MANIFEST",
    "OUTPUTS",
    "SETTINGS",
    "SIGNATURE",
    "LoadedModel",
    "ModelMetadata",
    "ServerOptions",
    "import_library",
    "is_url",
    "load",
    "read_manifest",
]
