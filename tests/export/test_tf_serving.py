"""One suite against two servers: the development server, and a real TensorFlow Serving where TF_SERVING_HOST names one.

TF_SERVING_HOST=host[:grpc_port[:rest_port]]   such as 127.0.0.1:8500:8501, the ports that are the defaults
TF_SERVING_MODEL=mnist                         the model it serves; its latest version is asked
TF_SERVING_EXPORT=exported/mnist               the export it serves, with its SavedModel, to compare with
"""

import http.client
import json
import os
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from export.deployment.warmup import BATCH_SIZES
from vae_bss_tf.errors import DataError, ServerError
from vae_bss_tf.runtime import INPUT, MANIFEST, OUTPUTS, SIGNATURE, load
from vae_bss_tf.runtime.remote import ServerOptions


class Endpoint:
    """A server, the model on it, and the same model here."""

    def __init__(self, host, grpc_port, rest_port, name, export, manifest):
        self.target = f"{host}:{grpc_port}"
        self.rest_address = (host, int(rest_port))
        self.name = name
        self.grpc_url = f"grpc://{host}:{grpc_port}/{name}"
        self.rest_url = f"http://{host}:{rest_port}/v1/models/{name}"
        self.manifest = manifest
        self.local = load(export / "saved_model" if (export / "saved_model").is_dir() else export)
        shape = self.local.metadata.input_shape
        self.mixtures = np.random.default_rng(0).random((40, *shape), np.float32)
        self.expected = self.local.outputs(self.mixtures)


@pytest.fixture(scope="module", params=["the development server", "TF_SERVING_HOST"])
def endpoint(request):
    if request.param != "TF_SERVING_HOST":
        server = request.getfixturevalue("server")
        versions = request.getfixturevalue("versions")
        return Endpoint(
            "127.0.0.1",
            server.port,
            server.rest_port,
            "digits",
            versions,
            request.getfixturevalue("exported") / MANIFEST,
        )
    place = os.environ.get("TF_SERVING_HOST")
    if not place:
        pytest.skip("no TensorFlow Serving: name one in TF_SERVING_HOST=host[:grpc_port[:rest_port]]")
    given = place.split(":")
    host, grpc_port, rest_port = [*given, "8500", "8501"] if len(given) == 1 else [*given, "8501"][:3]
    missing = [name for name in ("TF_SERVING_MODEL", "TF_SERVING_EXPORT") if name not in os.environ]
    assert not missing, f"TF_SERVING_HOST is set: set {' and '.join(missing)} too"
    name, export = os.environ["TF_SERVING_MODEL"], Path(os.environ["TF_SERVING_EXPORT"])
    return Endpoint(host, grpc_port, rest_port, name, export, export / MANIFEST)


@pytest.fixture(params=["rest", "grpc"])
def loaded(request, endpoint):
    with load(getattr(endpoint, f"{request.param}_url")) as loaded:
        yield loaded


@pytest.fixture
def url(loaded):
    return loaded.metadata.path


def test_the_same_answers_as_here(loaded, endpoint):
    found = loaded.outputs(endpoint.mixtures, batch_size=16)
    for name in OUTPUTS:
        np.testing.assert_allclose(found[name], endpoint.expected[name], atol=1e-5)
    np.testing.assert_allclose(loaded.separate(endpoint.mixtures[0]), endpoint.expected["sources"][0], atol=1e-5)
    ours = endpoint.local.metadata
    theirs = loaded.metadata
    assert (theirs.input_shape, theirs.num_sources, theirs.latent_dim) == (
        ours.input_shape, ours.num_sources, ours.latent_dim,
    )  # fmt: skip


def test_the_settings_it_says(loaded, endpoint):
    signatures = tf.saved_model.load(str(endpoint.local.metadata.path)).signatures
    if "settings" not in signatures:
        assert loaded.metadata.preset is None
        return
    said = json.loads(signatures["settings"](request=tf.constant([""]))["settings"].numpy()[0])
    assert loaded.metadata.preset.to_dict() == said["preset"]


def test_the_manifest_it_belongs_to(loaded, endpoint, url):
    if not endpoint.manifest.is_file():
        pytest.skip("the export has no manifest.json")
    with load(url, server=ServerOptions(manifest=endpoint.manifest)) as checked:
        assert checked.metadata.input_shape == endpoint.local.metadata.input_shape


@pytest.mark.parametrize("which", ["/versions/987654321", "/labels/no-such-label"])
def test_what_is_not_served(which, url):
    with pytest.raises(ServerError):
        load(url + which)
    with pytest.raises(ServerError):
        load(url.replace(url.rpartition("/")[2], "no-such-model"))


def test_bad_mixtures_are_not_sent(loaded, endpoint):
    shape = endpoint.local.metadata.input_shape
    for mixture in (np.zeros((1, *shape[:-1], shape[-1] + 1)), np.full(shape, np.nan)):
        with pytest.raises(DataError):
            loaded.separate(mixture)


def test_more_than_four_mebibytes(endpoint):
    pixels = int(np.prod(endpoint.local.metadata.input_shape))
    count = 5 * 2**20 // (4 * pixels) + 1
    if count > BATCH_SIZES[-1] and "TF_SERVING_HOST" in os.environ:
        pytest.skip(f"a deployment takes {BATCH_SIZES[-1]} mixtures a request, which are shorter for this model")
    mixtures = np.resize(endpoint.mixtures, (count, *endpoint.mixtures.shape[1:]))
    with load(endpoint.grpc_url) as loaded:
        found = loaded.separate(mixtures, batch_size=count)
    np.testing.assert_allclose(found, np.resize(endpoint.expected["sources"], found.shape), atol=1e-5)


class TestRequestsThatOurClientWouldNotSend:
    @pytest.mark.parametrize(
        ("change", "codes"),
        [
            ("shape", {"INVALID_ARGUMENT"}),
            ("dtype", {"INVALID_ARGUMENT"}),
            ("name", {"INVALID_ARGUMENT"}),
            ("signature", {"INVALID_ARGUMENT", "FAILED_PRECONDITION", "NOT_FOUND"}),
        ],
    )
    def test_over_grpc(self, change, codes, endpoint):
        mixtures = endpoint.mixtures
        array = {"shape": mixtures[:, 1:], "dtype": mixtures.astype(np.float64)}.get(change, mixtures)
        request = predict_pb2.PredictRequest()
        request.model_spec.name = endpoint.name
        request.model_spec.signature_name = "no-such-signature" if change == "signature" else SIGNATURE
        request.inputs["picture" if change == "name" else INPUT].CopyFrom(tf.make_tensor_proto(array))
        with grpc.insecure_channel(endpoint.target) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            with pytest.raises(grpc.RpcError) as raised:
                stub.Predict(request, timeout=60)
        assert raised.value.code().name in codes
        assert raised.value.details()
        self.alive(endpoint)

    @pytest.mark.parametrize("change", ["shape", "dtype", "name", "ragged", "no JSON", "nothing"])
    def test_over_rest(self, change, endpoint):
        values = endpoint.mixtures[:2].tolist()
        body = {
            "shape": {"inputs": endpoint.mixtures[:2, 1:].tolist()},
            "dtype": {"inputs": np.full(endpoint.mixtures[:2].shape, "text").tolist()},
            "name": {"inputs": {"picture": values}},
            "ragged": {"inputs": [values[0], values[1][1:]]},
            "no JSON": "{",
            "nothing": {},
        }[change]
        connection = http.client.HTTPConnection(*endpoint.rest_address, timeout=60)
        content = body if isinstance(body, str) else json.dumps(body)
        connection.request("POST", f"/v1/models/{endpoint.name}:predict", content)
        answer = connection.getresponse()
        assert answer.status == 400
        assert json.loads(answer.read())["error"]
        connection.close()
        self.alive(endpoint)

    def alive(self, endpoint):
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = endpoint.name
        with grpc.insecure_channel(endpoint.target) as channel:
            stub = model_service_pb2_grpc.ModelServiceStub(channel)
            states = stub.GetModelStatus(request, timeout=60).model_version_status
        assert get_model_status_pb2.ModelVersionStatus.AVAILABLE in {state.state for state in states}
