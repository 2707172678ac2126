"""The development server speaks TensorFlow Serving's REST and gRPC API, and lives through bad requests."""

import contextlib
import dataclasses
import http.client
import json
import shutil
import socket
import time

import grpc
import numpy as np
import psutil
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from export import serve
from export.devserver.config import ServedModel, named_models, read_config
from export.devserver.server import DevelopmentServer
from export.devserver.store import RequestError
from vae_bss_tf.errors import CheckpointError, ConfigError, ServerUnavailableError
from vae_bss_tf.runtime import load
from vae_bss_tf.runtime.remote import ServerOptions

MODEL = "/v1/models/digits"


def rest(server, method, path, body=None):
    """Sends one request; the body may be what JSON can hold, or bytes."""
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=30)
    content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(method, path, content)
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield channel


@pytest.fixture(scope="module")
def prediction(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def model_service(channel):
    return model_service_pb2_grpc.ModelServiceStub(channel)


def request_for(array, signature="separate", name="mixture", **spec):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "digits"
    request.model_spec.signature_name = signature
    for key, value in spec.items():
        if key == "version":
            request.model_spec.version.value = value
        else:
            setattr(request.model_spec, key, value)
    request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    return request


class TestRest:
    @pytest.mark.parametrize("which", ["", "/versions/2", "/labels/canary"])
    def test_rows_and_columns(self, which, server, second_model, mixtures):
        expected = second_model.predict({"mixture": mixtures[:3]}, verbose=0)
        values = mixtures[:3].tolist()
        for instances in (values, [{"mixture": value} for value in values]):
            request = {"signature_name": "separate", "instances": instances}
            status, answer = rest(server, "POST", f"{MODEL}{which}:predict", request)
            assert status == 200
            assert [set(row) for row in answer["predictions"]] == [set(expected)] * 3
            for name, output in expected.items():
                np.testing.assert_allclose([row[name] for row in answer["predictions"]], output, atol=1e-5)
        for inputs in (values, {"mixture": values}):
            status, answer = rest(server, "POST", f"{MODEL}{which}:predict", {"inputs": inputs})
            assert status == 200
            for name, output in expected.items():
                np.testing.assert_allclose(answer["outputs"][name], output, atol=1e-5)

    def test_a_single_output_has_no_name(self, server, run):
        request = {"signature_name": "settings", "instances": ["", "anything"]}
        _, rows = rest(server, "POST", f"{MODEL}:predict", request)
        _, columns = rest(server, "POST", f"{MODEL}:predict", {"signature_name": "settings", "inputs": ["", ""]})
        assert rows["predictions"] == columns["outputs"]
        assert json.loads(rows["predictions"][1])["config_hash"] == run.preset.config_hash()

    def test_status(self, server):
        available = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        both = [{"version": "2", **available}, {"version": "1", **available}]
        assert rest(server, "GET", MODEL) == (200, {"model_version_status": both})
        assert rest(server, "GET", f"{MODEL}/versions/1") == (200, {"model_version_status": both[1:]})
        assert rest(server, "GET", f"{MODEL}/labels/canary") == (200, {"model_version_status": both[:1]})

    def test_metadata(self, server):
        status, answer = rest(server, "GET", f"{MODEL}/labels/stable/metadata")
        assert status == 200
        assert answer["model_spec"] == {"name": "digits", "signature_name": "", "version": "1"}
        signatures = answer["metadata"]["signature_def"]["signature_def"]
        assert {"separate", "encode", "decode", "settings", "serving_default"} <= set(signatures)
        mixture = signatures["separate"]["inputs"]["mixture"]
        assert mixture["dtype"] == "DT_FLOAT"
        assert [dimension["size"] for dimension in mixture["tensor_shape"]["dim"]] == ["-1", "8", "8"]
        assert signatures["separate"]["method_name"] == "tensorflow/serving/predict"

    @pytest.mark.parametrize(
        ("path", "status", "message"),
        [
            ("/v1/models/letters", 404, "Servable not found for request: Latest(letters)"),
            ("/v1/models/letters/metadata", 404, "Servable not found for request: Latest(letters)"),
            (f"{MODEL}/versions/9/metadata", 404, "Servable not found for request: Specific(digits, 9)"),
            (f"{MODEL}/versions/9", 404, "Servable not found for request: Specific(digits, 9)"),
            (f"{MODEL}/labels/none/metadata", 400, "Unrecognized servable version label: none"),
            ("/v1/models", 400, "Malformed request: GET /v1/models"),
            (f"{MODEL}:predict", 400, "Malformed request: GET"),
            ("/", 400, "Malformed request: GET /"),
        ],
    )
    def test_what_cannot_be_got(self, path, status, message, server):
        found, answer = rest(server, "GET", path)
        assert found == status
        assert message in answer["error"]

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (b"\xff\x00", "JSON Parse error"),
            (b"[" * 100_000, "JSON Parse error"),
            ([], "no JSON object"),
            ({}, "Missing 'inputs' or 'instances' key"),
            ({"inputs": [], "instances": []}, "both 'inputs' and 'instances'"),
            ({"instances": 1}, "'instances' is no list"),
            ({"instances": []}, "'instances' is no list, or an empty one"),
            ({"instances": [{"a": 1}, {"b": 1}]}, "same keys"),
            ({"signature_name": 1, "inputs": []}, "its 'signature_name' is no string"),
            ({"signature_name": "none", "inputs": []}, 'Serving signature key "none" not found'),
            ({"inputs": {"picture": [[0.0]]}}, "the inputs are ['picture']; expected ['mixture']"),
            ({"inputs": {"mixture": np.zeros((2, 7, 8)).tolist()}}, "float32 (2, 7, 8); expected float32 (None, 8, 8)"),
            ({"inputs": np.zeros((8, 8)).tolist()}, "(8, 8); expected float32 (None, 8, 8)"),
            ({"inputs": [[[0.0], [0.0, 1.0]]]}, "JSON Value of mixture"),
            ({"inputs": np.full((1, 8, 8), "0.5").tolist()}, "a value is no number"),
            ({"inputs": [[[True] * 8] * 8]}, "a value is no number"),
            ({"inputs": [[[None] * 8] * 8]}, "a value is no number"),
            ({"inputs": [[[10**400] * 8] * 8]}, "JSON Value of mixture"),
            ({"signature_name": "settings", "inputs": [1]}, "JSON Value of request"),
            ({"signature_name": "settings", "inputs": [{"b64": "AA=="}]}, "JSON Value of request"),
            ({"signature_name": "settings", "inputs": [""] * 1_001}, "request holds too many values"),
        ],
    )
    def test_what_cannot_be_predicted(self, body, message, server):
        status, answer = rest(server, "POST", f"{MODEL}:predict", body)
        assert status == 400
        assert message in answer["error"]

    def test_not_a_number_goes_through_as_in_tensorflow_serving(self, server):
        body = json.dumps({"inputs": np.full((1, 8, 8), np.nan).tolist()}).encode()
        status, answer = rest(server, "POST", f"{MODEL}:predict", body)
        assert status == 200
        assert np.isnan(answer["outputs"]["sources"]).all()

    @pytest.mark.parametrize(
        ("head", "status"),
        [
            (b"POST /v1/models/digits:predict HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            (b"POST /v1/models/digits:predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
            (b"POST /v1/models/digits:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", 413),
            (b"DELETE /v1/models/digits HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            (b"GET /v1/models/digits HTTP/7.0\r\nHost: x\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 1_000 + b"\r\n", 400),
            (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            (b"\x16\x03\x01\x02\x00garbage\r\n\r\n", 400),
        ],
    )
    def test_what_is_hardly_http(self, head, status, server):
        assert self.refused(head, server) == status

    @pytest.mark.parametrize(
        "framing",
        [
            "POST:Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST:Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            "POST:Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
            "POST:Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
            "POST:Content-Length: 5, 5\r\n\r\nhello",
            "POST:Content-Length : 5\r\n\r\nhello",
            "POST:Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
            "GET:Content-Length: 5\r\n\r\nhello",
            "GET:Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ],
    )
    def test_a_request_whose_end_is_in_doubt_is_refused(self, framing, server):
        method, _, rest_of_it = framing.partition(":")
        hidden = "GET /v1/models/digits HTTP/1.1\r\nHost: x\r\n\r\n"
        request = f"{method} /v1/models/digits HTTP/1.1\r\nHost: x\r\n{rest_of_it}{hidden}"
        assert self.refused(request.encode(), server) == 400

    def refused(self, request, server):
        """The status of the one answer, after which the connection closes."""
        with socket.create_connection(("127.0.0.1", server.rest_port), timeout=30) as connection:
            connection.sendall(request)
            connection.settimeout(30)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            answer.read()
            with contextlib.suppress(ConnectionError):
                assert connection.recv(1) == b""
            return answer.status

    def test_a_body_of_many_empty_lists_is_refused_before_it_is_parsed(self, server):
        body = b'{"inputs": [' + b"[]," * 2**23 + b"[]]}"
        process = psutil.Process()
        before = process.memory_info().rss
        status, answer = rest(server, "POST", f"{MODEL}:predict", body)
        assert (status, "too many values" in answer["error"]) == (400, True)
        assert process.memory_info().rss - before < 2**27


class TestGrpc:
    def test_outputs_and_the_version_that_gave_them(self, prediction, model, second_model, mixtures):
        for spec, version, keras_model in (
            ({}, 2, second_model),
            ({"version": 1}, 1, model),
            ({"version_label": "stable"}, 1, model),
        ):
            answer = prediction.Predict(request_for(mixtures, **spec))
            assert (answer.model_spec.name, answer.model_spec.version.value) == ("digits", version)
            for name, expected in keras_model.predict({"mixture": mixtures}, verbose=0).items():
                np.testing.assert_allclose(tf.make_ndarray(answer.outputs[name]), expected, atol=1e-5)

    def test_values_one_by_one(self, prediction, second_model, mixtures):
        request = request_for(mixtures)
        request.inputs["mixture"].float_val.extend(mixtures.ravel().tolist())
        request.inputs["mixture"].tensor_content = b""
        request.output_filter.append("sources")
        answer = prediction.Predict(request)
        assert list(answer.outputs) == ["sources"]
        found = tf.make_ndarray(answer.outputs["sources"])
        np.testing.assert_allclose(found, second_model.separate(mixtures), atol=1e-5)

    def test_encode_and_decode(self, prediction, second_model, mixtures):
        latents = prediction.Predict(request_for(mixtures, "encode")).outputs["latent_mean"]
        decoded = prediction.Predict(request_for(tf.make_ndarray(latents), "decode", "latents")).outputs["estimates"]
        expected = second_model.predict({"mixture": mixtures}, verbose=0)["estimates"]
        np.testing.assert_allclose(tf.make_ndarray(decoded), expected, atol=1e-5)

    @pytest.mark.parametrize(
        ("change", "code", "message"),
        [
            (lambda r: setattr(r.model_spec, "name", "letters"), "NOT_FOUND", "Latest(letters)"),
            (lambda r: setattr(r.model_spec.version, "value", 9), "NOT_FOUND", "Specific(digits, 9)"),
            (lambda r: setattr(r.model_spec, "version_label", "x"), "INVALID_ARGUMENT", "label: x"),
            (lambda r: setattr(r.model_spec, "signature_name", "x"), "FAILED_PRECONDITION", 'key "x" not found'),
            (lambda r: r.output_filter.append("x"), "INVALID_ARGUMENT", "there is no output x"),
            (
                lambda r: r.inputs["x"].CopyFrom(r.inputs["mixture"]),
                "INVALID_ARGUMENT",
                "['mixture', 'x']; expected ['mixture']",
            ),
            (lambda r: r.inputs.clear(), "INVALID_ARGUMENT", "the inputs are []; expected ['mixture']"),
            (
                lambda r: r.inputs["mixture"].CopyFrom(tf.make_tensor_proto(np.zeros((1, 7, 8), np.float32))),
                "INVALID_ARGUMENT",
                "float32 (1, 7, 8); expected float32 (None, 8, 8)",
            ),
            (
                lambda r: r.inputs["mixture"].CopyFrom(tf.make_tensor_proto(np.zeros((1, 8, 8)))),
                "INVALID_ARGUMENT",
                "dtype of a tensor is number 2",
            ),
            (
                lambda r: r.inputs["mixture"].CopyFrom(tf.make_tensor_proto(np.full((1, 8, 8), b""))),
                "INVALID_ARGUMENT",
                "string (1, 8, 8); expected float32 (None, 8, 8)",
            ),
            (
                lambda r: setattr(r.inputs["mixture"], "tensor_content", b"123"),
                "INVALID_ARGUMENT",
                "holds only 0 values",
            ),
            (
                lambda r: setattr(r.inputs["mixture"].tensor_shape.dim[0], "size", 2**40),
                "INVALID_ARGUMENT",
                "and holds only 2688 values",
            ),
            (
                lambda r: r.inputs["mixture"].tensor_shape.dim.extend([r.inputs["mixture"].tensor_shape.dim[0]] * 99),
                "INVALID_ARGUMENT",
                "holds only 2688 values",
            ),
            (
                lambda r: r.inputs["mixture"].string_val.extend([b""] * 1_001),
                "INVALID_ARGUMENT",
                "too many values",
            ),
        ],
    )
    def test_what_cannot_be_predicted(self, change, code, message, prediction, mixtures):
        request = request_for(mixtures)
        change(request)
        with pytest.raises(grpc.RpcError) as raised:
            prediction.Predict(request)
        assert raised.value.code() == grpc.StatusCode[code]
        assert message in raised.value.details()

    def test_one_value_does_not_stand_for_millions(self, prediction):
        """The 57 bytes that once took 10 GB."""
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "digits"
        request.model_spec.signature_name = "separate"
        tensor = request.inputs["mixture"]
        tensor.dtype = 1
        tensor.float_val.append(0.5)
        for size in (2**20, 8, 8):
            tensor.tensor_shape.dim.add().size = size
        assert len(request.SerializeToString()) < 64
        process = psutil.Process()
        before = process.memory_info().rss
        with pytest.raises(grpc.RpcError) as raised:
            prediction.Predict(request)
        assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "holds only 1 values" in raised.value.details()
        assert process.memory_info().rss - before < 2**24

    def test_not_a_number_goes_through_as_in_tensorflow_serving(self, prediction):
        answer = prediction.Predict(request_for(np.full((1, 8, 8), np.nan, np.float32)))
        assert np.isnan(tf.make_ndarray(answer.outputs["sources"])).all()

    def test_what_it_does_not_do(self, prediction):
        from tensorflow_serving.apis import classification_pb2

        with pytest.raises(grpc.RpcError) as raised:
            prediction.Classify(classification_pb2.ClassificationRequest())
        assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED

    def test_metadata(self, prediction, versions):
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = "digits"
        answer = prediction.GetModelMetadata(request)
        definitions = get_model_metadata_pb2.SignatureDefMap()
        assert answer.metadata["signature_def"].Unpack(definitions)
        from tensorflow.python.saved_model.loader_impl import parse_saved_model

        expected = parse_saved_model(str(versions / "2")).meta_graphs[0].signature_def
        assert dict(definitions.signature_def) == dict(expected)
        for fields in ([], ["graph"]):
            del request.metadata_field[:]
            request.metadata_field.extend(fields)
            with pytest.raises(grpc.RpcError) as raised:
                prediction.GetModelMetadata(request)
            assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT

    def test_status(self, model_service):
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = "digits"
        states = {s.version: s.state for s in model_service.GetModelStatus(request).model_version_status}
        assert states == {1: 30, 2: 30}
        request.model_spec.name = "letters"
        with pytest.raises(grpc.RpcError) as raised:
            model_service.GetModelStatus(request)
        assert raised.value.code() == grpc.StatusCode.NOT_FOUND


def config_text(base_path, more=""):
    return f'model_config_list {{ config {{ name: "digits" base_path: "{base_path}" {more} }} }}'


class TestConfiguration:
    def test_as_tensorflow_serving_reads_it(self, versions, tmp_path):
        place = tmp_path / "models.config"
        for more, latest, specific, aspired in (
            ('model_platform: "tensorflow"', 1, None, [2]),
            ("model_version_policy { all {} }", None, None, [1, 2]),
            ("model_version_policy { latest { num_versions: 2 } }", 2, None, [1, 2]),
            ("model_version_policy { specific { versions: 1 } }", None, (1,), [1]),
        ):
            place.write_text(config_text(versions, more))
            (model,) = read_config(place)
            assert model == ServedModel("digits", versions, latest, specific)
            assert model.aspired() == aspired
        labels = 'version_labels { key: "stable" value: 2 }'
        place.write_text(config_text(versions, labels))
        assert read_config(place)[0].labels == {"stable": 2}

    def test_an_export_folder_or_a_folder_of_versions(self, exported, versions):
        models = named_models([f"one={exported}", f"two={versions}"])
        assert [model.base_path for model in models] == [exported / "saved_model", versions]
        assert [model.aspired() for model in models] == [[1], [1, 2]]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("model_config_list {", "cannot be served"),
            ("", "no model stands in model_config_list"),
            ('model_config_list { config { name: "x" } }', "needs a name and a base_path"),
            ("MISSING", "has no folder of a version"),
            ("EMPTY", "has no folder of a version"),
            ("VERSION", "has no version 7"),
            ("LABEL", "has no version 7, or it is not to be served"),
            ("TWICE", "digits is given twice"),
        ],
    )
    def test_bad_ones_end_in_one_line(self, text, message, versions, tmp_path, capsys):
        (tmp_path / "empty").mkdir()
        place = tmp_path / "models.config"
        written = {
            "MISSING": config_text(tmp_path / "none"),
            "EMPTY": config_text(tmp_path / "empty"),
            "VERSION": config_text(versions, "model_version_policy { specific { versions: 7 } }"),
            "LABEL": config_text(versions, 'version_labels { key: "stable" value: 7 }'),
            "TWICE": config_text(versions, f'}} config {{ name: "digits" base_path: "{versions}"'),
        }
        place.write_text(written.get(text, text))
        self.refused(["--models-config", str(place)], message, capsys)

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--models-config", "none.config"], "none.config cannot be served"),
            (["--model", "digits"], "is no NAME=PATH"),
            (["--model", "digits=none"], "digits: none has no folder of a version"),
        ],
    )
    def test_bad_words_end_in_one_line(self, words, message, capsys):
        self.refused(words, message, capsys)

    @pytest.mark.parametrize(
        ("word", "value"),
        [("--port", "65536"), ("--rest-port", "-1"), ("--poll-seconds", "0"), ("--poll-seconds", "nan")],
    )
    def test_numbers_out_of_range(self, word, value, versions, capsys):
        self.refused(["--model", f"digits={versions}", f"{word}={value}"], "must be", capsys)

    def test_a_port_in_use(self, server, versions, capsys):
        words = ["--model", f"digits={versions}"]
        self.refused([*words, "--port", str(server.port), "--rest-port", "0"], "choose another --port", capsys)
        self.refused([*words, "--rest-port", str(server.rest_port), "--port", "0"], "is taken", capsys)

    def test_a_host_that_is_not_here(self, versions, capsys):
        words = ["--model", f"digits={versions}", "--port", "0", "--rest-port", "0"]
        self.refused([*words, "--host", "192.0.2.1"], "choose another --host", capsys)
        self.refused([*words, "--host", "no.such.host.invalid"], "choose another --host", capsys)

    def test_a_broken_model(self, versions, tmp_path, capsys):
        shutil.copytree(versions / "1", tmp_path / "served/1")
        next((tmp_path / "served/1/variables").glob("*.index")).unlink()
        words = ["--model", f"digits={tmp_path}/served", "--port", "0", "--rest-port", "0"]
        self.refused(words, "cannot be loaded", capsys)

    def test_a_graph_that_may_reach_files(self, tmp_path, capsys):
        module = tf.Module()
        module.write = tf.function(
            lambda mixture: {"sources": tf.io.matching_files(tf.constant("/*")) if mixture.shape else mixture},
            input_signature=[tf.TensorSpec([None, 8, 8], name="mixture")],
        )
        tf.saved_model.save(module, str(tmp_path / "served/1"), signatures={"separate": module.write})
        words = ["--model", f"digits={tmp_path}/served", "--port", "0", "--rest-port", "0"]
        self.refused(words, "MatchingFiles", capsys)

    @pytest.mark.parametrize("name", ["9" * 20, "007", "1.5", "²"])
    def test_a_folder_that_is_no_version_is_ignored(self, name, versions, tmp_path):
        for version in ("1", name):
            shutil.copytree(versions / "1", tmp_path / "digits" / version)
        (model,) = named_models([f"digits={tmp_path / 'digits'}"])
        assert model.aspired() == [1]

    def refused(self, words, message, capsys):
        assert serve.main(words) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert message in error


class TestVersionsComeAndGo:
    @pytest.fixture
    def folder(self, versions, tmp_path):
        shutil.copytree(versions / "1", tmp_path / "digits/1")
        return tmp_path / "digits"

    def test_a_new_version_is_rolled_out_and_back(self, folder, versions, model, second_model, mixtures):
        served = [ServedModel("digits", folder)]
        with DevelopmentServer(served) as server:
            loaded = load(f"grpc://127.0.0.1:{server.port}/digits")
            np.testing.assert_allclose(loaded.separate(mixtures), model.separate(mixtures), atol=1e-5)
            shutil.copytree(versions / "2", folder / "2")
            server.store.serve(served)
            np.testing.assert_allclose(loaded.separate(mixtures), second_model.separate(mixtures), atol=1e-5)
            assert server.store.describe() == ["digits: version 2"]
            shutil.rmtree(folder / "2")
            server.store.serve(served)
            np.testing.assert_allclose(loaded.separate(mixtures), model.separate(mixtures), atol=1e-5)
            # With no version left, what is loaded stays.
            shutil.rmtree(folder / "1")
            server.store.serve(served)
            assert loaded.separate(mixtures).shape == (len(mixtures), 2, 8, 8)

    def test_a_broken_version_does_not_displace_the_one_before(self, folder, versions, model, second_model, mixtures):
        served = [ServedModel("digits", folder, latest=None)]
        with DevelopmentServer(served) as server:
            shutil.copytree(versions / "2", folder / "2")
            index = folder / "2/variables/variables.index"
            saved = index.read_bytes()
            index.unlink()
            with pytest.raises(CheckpointError, match="cannot be loaded"):
                server.store.serve(served)
            assert server.store.describe() == ["digits: version 1"]
            loaded = load(f"grpc://127.0.0.1:{server.port}/digits")
            np.testing.assert_allclose(loaded.separate(mixtures), model.separate(mixtures), atol=1e-5)
            assert rest(server, "GET", f"{MODEL}/versions/2")[0] == 404
            index.write_bytes(saved)
            server.store.serve(served)
            np.testing.assert_allclose(loaded.separate(mixtures), second_model.separate(mixtures), atol=1e-5)

    def test_a_label_moves_to_loaded_versions_only(self, folder, versions):
        first = ServedModel("digits", folder, latest=None, labels={"stable": 1})
        with DevelopmentServer([first]) as server:
            kept = server.store.find("digits")[1]
            shutil.copytree(versions / "2", folder / "2")
            with pytest.raises(ConfigError, match="label stable cannot move to version 2: load that first"):
                server.store.serve([dataclasses.replace(first, labels={"stable": 2})])
            server.store.serve([dataclasses.replace(first, labels={"stable": 1, "canary": 2})])
            server.store.serve([dataclasses.replace(first, labels={"stable": 2})])
            assert server.store.find("digits", None, "stable")[0] == 2
            # What was loaded already is not loaded again.
            assert server.store.find("digits", 1)[1] is kept


class TestRudeClients:
    def alive(self, server, mixtures, expected):
        for url in (f"http://127.0.0.1:{server.rest_port}{MODEL}", f"grpc://127.0.0.1:{server.port}/digits"):
            np.testing.assert_allclose(load(url).separate(mixtures), expected, atol=1e-5)

    @pytest.mark.parametrize(
        "head",
        [
            b"",
            b"GET /v1/mod",
            b"GET /v1/models/digits HTTP/1.1\r\nX: ",
            b"POST /v1/models/digits:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{",
        ],
    )
    def test_slow_clients_keep_nobody_waiting(self, head, server, second_model, mixtures):
        with contextlib.ExitStack() as stack:
            for _ in range(100):
                connection = socket.create_connection(("127.0.0.1", server.rest_port), timeout=30)
                stack.enter_context(connection).sendall(head)
            self.alive(server, mixtures, second_model.separate(mixtures))

    def test_a_body_that_does_not_come_ends_in_an_error(self, versions, monkeypatch):
        monkeypatch.setattr("export.devserver.rest.READ_SECONDS", 0.2)
        with (
            DevelopmentServer([ServedModel("digits", versions)]) as server,
            socket.create_connection(("127.0.0.1", server.rest_port), timeout=30) as connection,
        ):
            connection.sendall(b"POST /v1/models/digits:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
            assert connection.recv(100).startswith(b"HTTP/1.1 408")

    @pytest.mark.parametrize("head", [b"", b"GET /v1/mod", b"GET /v1/models/digits HTTP/1.1\r\nX: "])
    def test_headers_that_do_not_come_end_the_connection(self, head, versions, monkeypatch):
        monkeypatch.setattr("export.devserver.rest.IDLE_SECONDS", 0.4)
        with DevelopmentServer([ServedModel("digits", versions)]) as server:
            used = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=30)
            used.request("GET", MODEL)
            assert json.loads(used.getresponse().read())["model_version_status"]
            for connection in (used.sock, socket.create_connection(("127.0.0.1", server.rest_port), timeout=30)):
                with connection, contextlib.suppress(ConnectionError):
                    connection.sendall(head)
                    for _ in range(40):  # one byte after the other does not help
                        connection.sendall(b"x")
                        time.sleep(0.02)
                    assert connection.recv(1) == b""

    def test_connections_beyond_the_limit_are_refused(self, versions, monkeypatch):
        monkeypatch.setattr("export.devserver.rest.MAX_CONNECTIONS", 3)
        with DevelopmentServer([ServedModel("digits", versions)]) as server, contextlib.ExitStack() as stack:
            held = [socket.create_connection(("127.0.0.1", server.rest_port), timeout=30) for _ in range(3)]
            for connection in held:
                stack.enter_context(connection)
            with socket.create_connection(("127.0.0.1", server.rest_port), timeout=30) as connection:
                assert connection.recv(1_000).startswith(b"HTTP/1.1 503")
                assert connection.recv(1_000) == b""
            url = f"http://127.0.0.1:{server.rest_port}{MODEL}"
            with pytest.raises(ServerUnavailableError):
                load(url, server=ServerOptions(retries=0))
            held[0].close()
            load(url)

    @pytest.mark.parametrize(
        "garbage", [b"\x00" * 1_000, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff", b"\n" * 70_000]
    )
    def test_garbage_on_both_ports(self, garbage, server, second_model, mixtures):
        for port in (server.port, server.rest_port):
            for _ in range(5):
                with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
                    connection.sendall(garbage)
        self.alive(server, mixtures, second_model.separate(mixtures))

    def test_an_unreadable_message(self, server, second_model, mixtures):
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            predict = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
            with pytest.raises(grpc.RpcError) as raised:
                predict(b"\xff" * 100)
        assert raised.value.code() == grpc.StatusCode.INTERNAL
        self.alive(server, mixtures, second_model.separate(mixtures))

    def test_errors_of_the_store_have_codes_of_grpc(self, server):
        with pytest.raises(RequestError) as raised:
            server.store.find("letters")
        assert raised.value.code == grpc.StatusCode.NOT_FOUND


NAMES = st.sampled_from(["mixture", "request", "inputs", "instances", "signature_name", "settings", "separate", ""])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | NAMES | st.just([[0.5] * 8] * 8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=10,
)


class TestRandomRequests:
    @settings(max_examples=100, deadline=None)
    @given(body=st.binary(max_size=100) | st.dictionaries(NAMES, VALUES).map(lambda value: json.dumps(value).encode()))
    def test_over_rest(self, body, server):
        status, answer = rest(server, "POST", f"{MODEL}:predict", body)
        assert status == 200 or (status == 400 and answer["error"])

    @settings(max_examples=100, deadline=None)
    @given(
        sizes=st.lists(st.sampled_from([0, 1, 2, 8]) | st.integers(-(2**63), 2**63 - 1), max_size=12),
        dtype=st.sampled_from([1, 1, 7, 2, 0]),
        numbers=st.lists(st.floats(width=32), max_size=9) | st.just([0.5] * 64),
        strings=st.lists(st.binary(max_size=9), max_size=3),
        content=st.binary(max_size=9) | st.just(bytes(256)),
    )
    def test_over_grpc(self, sizes, dtype, numbers, strings, content, prediction):
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "digits"
        request.model_spec.signature_name = "settings" if dtype == 7 else "separate"
        tensor = request.inputs["request" if dtype == 7 else "mixture"]
        tensor.dtype, tensor.tensor_content = dtype, content
        tensor.float_val.extend(numbers)
        tensor.string_val.extend(strings)
        for size in sizes:
            tensor.tensor_shape.dim.add().size = size
        code = prediction.Predict.future(request).code()
        assert code in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT)


def test_config_errors_are_the_apis_too(tmp_path):
    with pytest.raises(ConfigError, match="no NAME=PATH"):
        named_models(["="])
