"""The warm-up file of a served model: TensorFlow Serving answers its requests before it takes any from outside."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from vae_bss_tf.config import Preset
from vae_bss_tf.runtime import INPUT, SIGNATURE, import_library
from vae_bss_tf.runtime.trusted import check_operations

Array = npt.NDArray[np.float32]

# The batches that a server runs: requests are put together and filled up to the next of these sizes. The last is the
# largest request that it takes.
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
WARMUP_FILE = Path("assets.extra/tf_serving_warmup_requests")

_SEED = 0


def write_warmup(saved_model: Path, name: str, mixtures: Array) -> None:
    """Writes a SavedModel's warm-up file: one request of `separate` for each of `BATCH_SIZES`.

    Args:
        saved_model: Folder of the SavedModel; the file is put into its `assets.extra`.
        name: The name that the model is served under.
        mixtures: float32 `[num_mixtures, ...]`, at least as many as the largest batch, as the signature takes them.

    Raises:
        ConfigError: tensorflow-serving-api is not installed.
    """
    predict_pb2, prediction_log_pb2 = (
        import_library(f"tensorflow_serving.apis.{name}_pb2", "train,serving") for name in ("predict", "prediction_log")
    )
    import tensorflow as tf

    path = saved_model / WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for size in BATCH_SIZES:
            request = predict_pb2.PredictRequest()
            request.model_spec.name = name
            request.model_spec.signature_name = SIGNATURE
            request.inputs[INPUT].CopyFrom(tf.make_tensor_proto(mixtures[:size]))
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString())


def warmup_mixtures(preset: Preset, saved_model: Path, data_dir: Path | None) -> tuple[Array, Array | None]:
    """Mixtures of the kind that a model is served: as many as its largest batch.

    They are held-out mixtures of the model's own data set where its files are given, or where it needs none (digits
    and tones). Else nothing of the data is at hand, and they are made: for images, sums of sources that the model
    decodes from its prior; for audio, mixtures of synthesised tones.

    Args:
        preset: The model's settings.
        saved_model: Its SavedModel, with the signature `decode`.
        data_dir: Folder of the data set's files, as `load_bank` takes it; None if it is not at hand.

    Returns:
        float32 `[256, *input_shape]` in [0, 1], as `separate` takes them; and for a model of audio the same mixtures
        as waveforms, float32 `[256, num_samples]` in [-1, 1], else None.

    Raises:
        ConfigError: The data set is not the one that the model was made for.
        DataError: The data set's files are missing or damaged.
    """
    from vae_bss_tf.datasets import load_bank, pipeline
    from vae_bss_tf.datasets.sound_mixtures import AudioEvaluationSet

    count = BATCH_SIZES[-1]
    if data_dir is not None or preset.data.dataset in ("digits", "tones"):
        bank = pipeline.load_banks(preset, data_dir, ("test",))["test"]
    elif preset.audio is not None:
        bank = load_bank("tones", "test", audio=preset.audio)
    else:
        return _decoded_mixtures(preset, saved_model, count), None
    drawn = pipeline.evaluation_data(preset, bank, num_mixtures=count, seed=_SEED)
    return drawn.mixtures, drawn.waveforms if isinstance(drawn, AudioEvaluationSet) else None


def _decoded_mixtures(preset: Preset, saved_model: Path, count: int) -> Array:
    import tensorflow as tf

    model, generator = preset.model, np.random.default_rng(_SEED)
    shape = (count, model.num_sources, model.latent_dim)
    if model.prior == "normal":
        latents = generator.standard_normal(shape)
    else:
        latents = generator.laplace(scale=np.sqrt(0.5), size=shape)
    check_operations(saved_model)
    loaded = tf.saved_model.load(str(saved_model))
    estimates = loaded.signatures["decode"](latents=tf.constant(latents, tf.float32))["estimates"].numpy()
    return np.clip(estimates.sum(axis=1), 0.0, 1.0)
