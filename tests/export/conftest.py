"""One small trained run and one full export of it, shared by all tests of the export."""

import contextlib
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from export import pipeline
from export.__main__ import main
from export.devserver.config import ServedModel
from export.devserver.server import DevelopmentServer
from export.gate import workers
from export.writers import saved_model
from training.run import Run
from vae_bss_tf.config import ModelConfig, Preset
from vae_bss_tf.datasets import load_bank
from vae_bss_tf.datasets.image_mixtures import evaluation_mixtures, training_mixtures
from vae_bss_tf.files import write_json
from vae_bss_tf.model import MultiSourceVAE


def trained(config, mixtures, steps):
    """A model trained on the ELBO with a normal likelihood, whatever objectives the package has."""
    model, optimizer = MultiSourceVAE(config), keras.optimizers.Adam(2e-3)
    model({"mixture": np.zeros((1, 8, 8), np.float32)})
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(mixture):
        with tf.GradientTape() as tape:
            outputs = model({"mixture": mixture}, training=True)
            mean, log_variance = outputs["latent_mean"], outputs["latent_log_variance"]
            kl = 0.5 * tf.reduce_sum(mean**2 + tf.exp(log_variance) - log_variance - 1, axis=[1, 2])
            error = tf.reduce_sum((tf.reduce_sum(outputs["estimates"], axis=1) - mixture) ** 2, axis=[1, 2])
            loss = tf.reduce_mean(5.0 * error + 0.5 * kl)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    for inputs in mixtures.take(steps):
        step(inputs["mixture"])
    return model


@pytest.fixture(scope="package", autouse=True)
def one_pool():
    """Exports convert in two processes that are there already."""
    with workers.converters() as pool, pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "converters", lambda: contextlib.nullcontext(pool))
        yield


@pytest.fixture(scope="session")
def run(tiny_preset, tmp_path_factory):
    """A run whose weights and batch moments have left their initial values."""
    preset = Preset(
        ModelConfig(
            input_shape=(8, 8),
            num_sources=2,
            latent_dim=5,
            hidden_units=(48, 32),
            convolutions=(8,),
            encoder_units=(32,),
            mask_channels=(4, 6),
        ),
        tiny_preset.data,
        tiny_preset.recipe,
    )
    run = Run.create(tmp_path_factory.mktemp("runs") / "digits", preset, "vae")
    keras.utils.set_random_seed(2)
    bank = load_bank("digits", "train")
    mixtures = training_mixtures(bank, num_mixed=(2,), batch_size=64, seed=0)
    model = trained(preset.model.replace(mask_channels=()), mixtures, steps=300)
    masked = MultiSourceVAE(preset.model)
    masked({"mixture": np.zeros((1, 8, 8), np.float32)})
    for part in ("encoder", "decoder"):
        getattr(masked, part).set_weights(getattr(model, part).get_weights())
    head = masked.mask_network.head.kernel  # zero at the start
    head.assign(np.random.default_rng(2).normal(scale=0.5, size=head.shape))
    masked.save(run.path / "model.keras")
    write_json(run.path / "metrics.json", {"mixtures": 19_200})
    return run


@pytest.fixture(scope="session")
def model(run):
    return run.model()


@pytest.fixture(scope="session")
def exported(run, tmp_path_factory):
    """The export of every format, as the command makes it."""
    target = tmp_path_factory.mktemp("exports") / "digits"
    assert main(["--run", str(run.path), "--to", str(target)]) == 0
    return target


@pytest.fixture(scope="session")
def manifest(exported):
    return json.loads((exported / "manifest.json").read_text())


@pytest.fixture(scope="session")
def held_out():
    """Mixtures that neither training, calibration nor the gate has seen."""
    return evaluation_mixtures(load_bank("digits", "test"), num_mixed=(2,), num_mixtures=40, seed=7)


@pytest.fixture(scope="session")
def mixtures(held_out):
    """Held-out mixtures, silence and full scale."""
    return np.concatenate([held_out.mixtures, np.zeros((1, 8, 8)), np.ones((1, 8, 8))]).astype(np.float32)


@pytest.fixture(scope="session")
def second_model(run):
    """Another model of the same shapes: the next version."""
    keras.utils.set_random_seed(2)
    model = MultiSourceVAE(run.preset.model)
    model({"mixture": np.zeros((1, 8, 8), np.float32)})
    return model


@pytest.fixture(scope="session")
def versions(run, model, second_model, tmp_path_factory):
    """A folder of two versions of one model, as a server takes it."""
    folder = tmp_path_factory.mktemp("served") / "digits"
    for number, version in ((1, model), (2, second_model)):
        saved_model.write(version, folder / str(number), preset=run.preset)
    return folder


@pytest.fixture(scope="session")
def server(versions):
    """A development server of both versions in this process."""
    digits = ServedModel("digits", versions, latest=None, labels={"stable": 1, "canary": 2})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.devserver.rest.LINGERING_SECONDS", 0.5)
        with DevelopmentServer([digits]) as server:
            yield server


@pytest.fixture(scope="session")
def urls(server):
    """URLs of the latest version by protocol."""
    return {
        "rest": f"http://127.0.0.1:{server.rest_port}/v1/models/digits",
        "grpc": f"grpc://127.0.0.1:{server.port}/digits",
    }


@pytest.fixture(scope="session")
def weight_types():
    """Gives the types, before any DEQUANTIZE, in which a TFLite file holds the weights of an operation."""

    def of(path, operation):
        model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
        codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
        (graph,) = model.subgraphs
        cast = {
            operator.outputs[0]: operator.inputs[0]
            for operator in graph.operators
            if codes[operator.opcodeIndex] == schema.BuiltinOperator.DEQUANTIZE
        }
        weights = [operator.inputs[1] for operator in graph.operators if codes[operator.opcodeIndex] == operation]
        return {graph.tensors[cast.get(weight, weight)].type for weight in weights}

    return of
