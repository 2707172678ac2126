"""The client of a model server, against a development server and against servers that misbehave."""

import contextlib
import http.server
import itertools
import json
import socket
import subprocess
import sys
import threading
import time
from concurrent import futures

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from export.devserver.config import ServedModel
from export.devserver.server import DevelopmentServer
from export.writers import saved_model
from vae_bss_tf.audio.separator import Separator
from vae_bss_tf.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DeadlineError,
    ServerError,
    ServerUnavailableError,
)
from vae_bss_tf.runtime import OUTPUTS, load
from vae_bss_tf.runtime.remote import ServerOptions
from vae_bss_tf.runtime.remote.address import Address
from vae_bss_tf.runtime.remote.model import RemoteModel
from vae_bss_tf.runtime.remote.signatures import Signature, Tensor
from vae_bss_tf.runtime.remote.tensors import fill_proto, read_proto

PROTOCOLS = ("rest", "grpc")
HURRIED = ServerOptions(deadline=30, retries=2, backoff=0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def url_of(protocol: str, port: int) -> str:
    return f"http://127.0.0.1:{port}/v1/models/digits" if protocol == "rest" else f"grpc://127.0.0.1:{port}/digits"


class TestAnswers:
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_every_protocol_says_what_the_model_says(self, protocol, urls, run, second_model, mixtures):
        loaded = load(urls[protocol])
        expected = second_model.predict({"mixture": mixtures}, verbose=0)
        found = loaded.outputs(mixtures, batch_size=7)
        assert set(found) == set(OUTPUTS)
        for name in OUTPUTS:
            assert found[name].dtype == np.float32
            np.testing.assert_allclose(found[name], expected[name], atol=1e-5)
        np.testing.assert_allclose(loaded.separate(mixtures[0]), expected["sources"][0], atol=1e-5)
        metadata = loaded.metadata
        assert (metadata.format, metadata.path, metadata.preset) == (protocol, urls[protocol], run.preset)
        assert (metadata.input_shape, metadata.num_sources, metadata.latent_dim) == ((8, 8), 2, 5)

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_versions_and_labels(self, protocol, urls, model, second_model, mixtures):
        first, second = model.separate(mixtures), second_model.separate(mixtures)
        assert np.abs(first - second).max() > 0.01
        for suffix, expected in (
            ("", second),
            ("/versions/1", first),
            ("/versions/2", second),
            ("/labels/stable", first),
            ("/labels/canary", second),
        ):
            with load(urls[protocol] + suffix) as loaded:
                np.testing.assert_allclose(loaded.separate(mixtures), expected, atol=1e-5)

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_several_threads_share_a_model(self, protocol, urls, second_model, mixtures):
        expected = second_model.separate(mixtures)
        with load(urls[protocol]) as loaded, futures.ThreadPoolExecutor(8) as pool:
            found = list(pool.map(loaded.separate, mixtures))
        np.testing.assert_allclose(np.stack(found), expected, atol=1e-5)

    def test_a_minute_of_audio_is_no_message_too_long(self, urls, second_model):
        mixtures = np.random.default_rng(0).random((20_000, 8, 8), np.float32)
        assert mixtures.nbytes > 4 * 2**20
        found = load(urls["grpc"]).outputs(mixtures, batch_size=len(mixtures))
        np.testing.assert_allclose(found["sources"], second_model.separate(mixtures), atol=1e-5)

    def test_rest_needs_no_tensorflow(self, urls, second_model, mixtures, tmp_path):
        np.save(tmp_path / "mixtures.npy", mixtures)
        script = f"""
import sys
for name in ("tensorflow", "keras", "grpc", "google.protobuf", "tensorflow_serving"):
    sys.modules[name] = None
import numpy as np
from vae_bss_tf.errors import ConfigError
from vae_bss_tf.runtime import load
np.save(r"{tmp_path}/sources.npy", load("{urls["rest"]}").separate(np.load(r"{tmp_path}/mixtures.npy")))
try:
    load("{urls["grpc"]}")
except ConfigError as error:
    print(error)
"""
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "pip install 'vae-bss-tf[serving]'" in done.stdout
        np.testing.assert_allclose(np.load(tmp_path / "sources.npy"), second_model.separate(mixtures), atol=1e-5)


class TestRefusedByTheServer:
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("letters", "has no such model, version or label: Servable not found for request: Latest"),
            ("digits/versions/9", "has no such model, version or label: Servable not found for request: Specific"),
            ("digits/labels/none", "refused the request .*Unrecognized servable version label: none"),
        ],
    )
    def test_what_is_not_served(self, protocol, name, message, urls):
        with pytest.raises(ServerError, match=message):
            load(urls[protocol].replace("digits", name))

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_a_version_that_is_withdrawn(self, protocol, versions, mixtures):
        digits = ServedModel("digits", versions, latest=None)
        with DevelopmentServer([digits]) as server:
            loaded = load(url_of(protocol, server.rest_port if protocol == "rest" else server.port) + "/versions/1")
            server.store.serve([ServedModel("digits", versions, latest=1)])
            with pytest.raises(ServerError, match="no such model, version or label"):
                loaded.separate(mixtures)

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_a_model_of_something_else(self, protocol, tmp_path):
        function = tf.function(lambda x: {"y": 2 * x}, input_signature=[tf.TensorSpec([None, 3], name="x")])
        tf.saved_model.save(tf.Module(), tmp_path / "1", signatures={"serving_default": function})
        with (
            DevelopmentServer([ServedModel("digits", tmp_path)]) as server,
            pytest.raises(CheckpointError, match="no signature 'separate'"),
        ):
            load(url_of(protocol, server.rest_port if protocol == "rest" else server.port))

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_messages_too_long_for_the_server(self, protocol, versions, mixtures):
        long = np.zeros((2_000, 8, 8), np.float32)
        with DevelopmentServer([ServedModel("digits", versions)], max_message_bytes=100_000) as server:
            loaded = load(url_of(protocol, server.rest_port if protocol == "rest" else server.port))
            for _ in range(3):
                with pytest.raises(ServerError, match=r"too long|longer than 100000"):
                    loaded.separate(long, batch_size=len(long))
            assert loaded.separate(mixtures[:3]).shape == (3, 2, 8, 8)


class TestRefusedLocally:
    """Nothing is sent: the server that told its signatures is gone."""

    @pytest.fixture(scope="class", params=PROTOCOLS)
    def orphan(self, request, versions):
        with DevelopmentServer([ServedModel("digits", versions)]) as server:
            port = server.rest_port if request.param == "rest" else server.port
            return load(url_of(request.param, port), server=ServerOptions(retries=0, max_message_bytes=200_000))

    @pytest.mark.parametrize(
        ("mixture", "message"),
        [
            (np.zeros((3, 7, 8)), "shape"),
            (np.full((8, 8), np.nan), "NaN"),
            (np.full((8, 8), 2.0), r"\[0, 1\]"),
            (np.zeros((0, 8, 8)), "no mixtures"),
            (np.zeros((5_000, 8, 8)), "more than max_message_bytes"),
        ],
    )
    def test_bad_mixtures(self, mixture, message, orphan):
        with pytest.raises(DataError, match=message):
            orphan.separate(mixture, batch_size=10_000)

    def test_the_server_is_gone(self, orphan):
        with pytest.raises(ServerUnavailableError, match=r"is not available .* after 1 attempt; start the server"):
            orphan.separate(np.zeros((8, 8)))

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_an_answer_too_long(self, protocol, urls):
        # The request fits; the answer, twice as many numbers and more, does not.
        options = ServerOptions(max_message_bytes=40_000)
        batch = np.zeros((100, 8, 8), np.float32) if protocol == "grpc" else np.zeros((40, 8, 8), np.float32)
        with pytest.raises(ServerError, match=r"longer than max_message_bytes|message is too long"):
            load(urls[protocol], server=options).outputs(batch)


class TestUrlsAndOptions:
    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("ftp://host:8501/digits", "begins with ftp://"),
            ("http://host:8501/digits", "names no model"),
            ("http://host:8501/v1/models/digits:predict", "names no model"),
            ("http://host:8501/v1/models/digits/versions/two", "names no model"),
            ("http://host:8501/v1/models/digits?x=1", "names no model"),
            ("http://host/v1/models/digits", "HOST:PORT"),
            ("http://user@host:8501/v1/models/digits", "HOST:PORT"),
            ("http://host:port/v1/models/digits", "no URL of a model"),
            ("http://exa mple:8501/v1/models/digits", "HOST:PORT"),
            (f"http://{'a' * 64}.org:8501/v1/models/digits", "HOST:PORT"),
            (f"http://{'a.' * 99}.:8501/v1/models/digits", "HOST:PORT"),
            ("http://host:99999/v1/models/digits", "no URL of a model"),
            ("grpc://host:8500", "names no model"),
            ("grpc://host:8500/digits/labels/", "names no model"),
            ("grpc://:8500/digits", "HOST:PORT"),
        ],
    )
    def test_what_is_no_url_of_a_model(self, url, message):
        with pytest.raises(ConfigError, match=message):
            load(url)

    def test_parts_of_a_url(self):
        address = Address.parse("http://[::1]:8501/v1/models/two%20words/labels/next")
        assert (address.host, address.port, address.name, address.label) == ("::1", 8501, "two words", "next")
        assert address.rest_path == "/v1/models/two%20words/labels/next"
        assert Address.parse("grpc://host:8500/digits/versions/12").version == 12

    @pytest.mark.parametrize(
        "wrong",
        [
            {"deadline": 0},
            {"deadline": float("nan")},
            {"backoff": -1},
            {"retries": -1},
            {"retries": 0.5},
            {"retries": None},
            {"deadline": "5"},
            {"max_message_bytes": 0},
            {"max_message_bytes": 2**31},
        ],
    )
    def test_options_out_of_range(self, wrong):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            ServerOptions(**wrong)

    def test_options_are_for_urls(self, tmp_path):
        with pytest.raises(ConfigError, match="is no URL"):
            load(tmp_path, server=ServerOptions())


class Answering:
    """A transport that raises or returns what it is told, in turn."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.seconds = []

    def signatures(self, seconds):
        shape = (None, 2, 8, 8)
        outputs = {name: Tensor("float32", shape if "latent" not in name else (None, 2, 5)) for name in OUTPUTS}
        return {"separate": Signature({"mixture": Tensor("float32", (None, 8, 8))}, outputs)}

    def predict(self, signature, array, described, names, seconds):
        self.seconds.append(seconds)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self):
        pass


class TestRetries:
    ADDRESS = Address.parse("grpc://host:8500/digits")

    @pytest.fixture
    def pauses(self, monkeypatch):
        """Pauses instead of sleeping, on a clock of their own."""
        clock = [0.0]
        taken = []

        def sleep(seconds):
            taken.append(seconds)
            clock[0] += seconds

        monkeypatch.setattr("vae_bss_tf.runtime.remote.model.time.monotonic", lambda: clock[0])
        monkeypatch.setattr("vae_bss_tf.runtime.remote.model.time.sleep", sleep)
        return taken

    def ask(self, transport, **options):
        return RemoteModel(self.ADDRESS, ServerOptions(**options), transport).separate(np.zeros((1, 8, 8)))

    def test_backs_off_until_the_server_is_there(self, pauses):
        answer = {"sources": np.ones((1, 2, 8, 8), np.float32)}
        transport = Answering(*[ServerUnavailableError("busy")] * 6, answer)
        assert (self.ask(transport, retries=6, backoff=0.1, max_backoff=1.0) == 1).all()
        for pause, longest in zip(pauses, (0.1, 0.2, 0.4, 0.8, 1.0, 1.0), strict=True):
            assert longest / 2 <= pause <= longest
        # What is left of the deadline shrinks with each try.
        assert transport.seconds == pytest.approx([60 - sum(pauses[:i]) for i in range(7)])

    def test_pauses_differ_from_client_to_client(self, pauses):
        with pytest.raises(ServerUnavailableError):
            self.ask(Answering(*[ServerUnavailableError("busy")] * 21), retries=20, max_backoff=0.1)
        assert len(set(pauses)) > 15

    def test_gives_up_after_the_last_retry(self, pauses):
        transport = Answering(*[ServerUnavailableError("busy")] * 10)
        with pytest.raises(ServerUnavailableError, match=r"grpc://host:8500/digits is not available \(busy\) after 4"):
            self.ask(transport, retries=3)
        assert len(transport.answers) == 6

    def test_gives_up_before_the_deadline(self, pauses):
        with pytest.raises(ServerUnavailableError, match="busy"):
            self.ask(Answering(*[ServerUnavailableError("busy")] * 1000), retries=1000, deadline=5)
        assert 3 < sum(pauses) < 5

    @pytest.mark.parametrize("error", [ServerError("wrong"), DeadlineError("late"), DataError("long")])
    def test_other_errors_are_not_tried_again(self, error, pauses):
        transport = Answering(error, {})
        with pytest.raises(type(error)):
            self.ask(transport)
        assert (pauses, len(transport.answers)) == ([], 1)

    @pytest.mark.parametrize("answer", [{}, {"sources": np.zeros((2, 2, 8, 8))}, {"sources": np.zeros((1, 3, 8, 8))}])
    def test_an_answer_of_another_shape(self, answer):
        with pytest.raises(ServerError, match=r"sources (is missing|has shape).*expected \(1, 2, 8, 8\)"):
            self.ask(Answering(answer))

    @pytest.mark.parametrize(
        "values",
        [np.full((1, 2, 8, 8), np.nan, np.float32), np.full((1, 2, 8, 8), np.inf, np.float32),
         np.full((1, 2, 8, 8), b"1", object), np.zeros((1, 2, 8, 8), np.float64)],
    )  # fmt: skip
    def test_an_answer_that_is_no_finite_number(self, values):
        with pytest.raises(ServerError, match="sources holds NaN, infinite or no numbers"):
            self.ask(Answering({"sources": values}))

    @pytest.mark.parametrize(
        ("output", "tensor", "message"),
        [
            (
                "sources",
                Tensor("string", (None, 2, 8, 8)),
                r"sources is string \[any, 2, 8, 8\]; it is no model",
            ),
            ("sources", Tensor("float32", None), "sources is float32"),
            ("sources", Tensor("float32", (None, 2, 8, 9)), "do not fit"),
            ("sources", Tensor("float32", (None, 2, None, 8)), "do not fit"),
            ("estimates", Tensor("float32", (None, 3, 8, 8)), "do not fit"),
            ("latent_mean", Tensor("float32", (None,)), "do not fit"),
            ("latent_mean", Tensor("float32", (None, 2, 0)), "do not fit"),
            ("latent_log_variance", Tensor("float32", (None, 2, 6)), "do not fit"),
        ],
    )
    def test_outputs_that_do_not_fit(self, output, tensor, message):
        transport = Answering()
        signatures = transport.signatures(0)
        signatures["separate"].outputs[output] = tensor
        transport.signatures = lambda seconds: signatures
        with pytest.raises(CheckpointError, match=message):
            self.ask(transport)

    @pytest.mark.parametrize(
        "settings",
        [
            Signature({}, {"settings": Tensor("string", (None,))}),
            Signature({"request": Tensor("string", (None,))}, {"other": Tensor("string", (None,))}),
        ],
    )
    def test_a_signature_of_settings_that_is_not_ours(self, settings):
        transport = Answering()
        signatures = {**transport.signatures(0), "settings": settings}
        transport.signatures = lambda seconds: signatures
        with pytest.raises(CheckpointError, match="'settings' that is not ours"):
            self.ask(transport)

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_a_server_that_starts_after_its_client(self, protocol, versions, second_model, mixtures):
        port = free_port()
        patient = ServerOptions(retries=10_000, backoff=0.05, max_backoff=0.1)
        with futures.ThreadPoolExecutor(1) as pool:
            answer = pool.submit(lambda: load(url_of(protocol, port), server=patient).separate(mixtures))
            time.sleep(0.3)
            assert not answer.done()
            ports = {"rest_port" if protocol == "rest" else "port": port}
            with DevelopmentServer([ServedModel("digits", versions)], **ports):
                np.testing.assert_allclose(answer.result(), second_model.separate(mixtures), atol=1e-5)

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_a_server_that_is_started_anew(self, protocol, versions, second_model, mixtures):
        served = [ServedModel("digits", versions)]
        expected = second_model.separate(mixtures)
        with DevelopmentServer(served) as server:
            ports = {"port": server.port, "rest_port": server.rest_port}
            loaded = load(url_of(protocol, ports["rest_port" if protocol == "rest" else "port"]))
            np.testing.assert_allclose(loaded.separate(mixtures), expected, atol=1e-5)
        with DevelopmentServer(served, **ports):
            np.testing.assert_allclose(loaded.separate(mixtures), expected, atol=1e-5)


@pytest.fixture
def scripted_http():
    """Starts an HTTP server that gives these answers, (status, body), one after the other."""
    running = []

    def start(*answers):
        remaining = list(answers)

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                status, body = remaining.pop(0)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        running.append(server)
        return url_of("rest", server.server_port), remaining

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture
def scripted_socket():
    """Starts a server that hands each connection to a function."""
    stopping = threading.Event()
    listeners = []

    def start(serve):
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def answer(connection):
            try:
                serve(connection, stopping)
            except OSError:
                pass
            finally:
                connection.close()

        def accept():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=[connection], daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return listener.getsockname()[1]

    yield start
    stopping.set()
    for listener in listeners:
        listener.close()


class TestOtherServers:
    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (200, b"<html>welcome</html>"),
            (200, b"[1, 2]"),
            (200, b"{}"),
            (200, b'{"metadata": {"signature_def": 7}}'),
            (200, b'{"metadata": {"signature_def": {"signature_def": {"separate": [1]}}}}'),
            (200, b"[" * 100_000),
            (200, b'{"metadata": {"signature_def": {"signature_def": {"separate": {"inputs": {"x": {"tensor_shape": '
                  b'{"dim": [{"size": 1e999}]}}}}}}}}'),
            (200, b"\x1f\x8b\x08compressed"),
            (404, b"<html>not found</html>"),
            (500, b"\xff\xfe"),
        ],
    )  # fmt: skip
    def test_answers_that_are_none(self, status, body, scripted_http):
        url, _ = scripted_http((status, body))
        with pytest.raises(ServerError, match="not as TensorFlow Serving does"):
            load(url, server=HURRIED)

    def test_unavailable_is_tried_again(self, scripted_http):
        busy = (503, b'{"error": "busy"}')
        url, remaining = scripted_http(
            busy, (503, b"gateway"), (200, b'{"metadata": {"signature_def": {"signature_def": {}}}}')
        )
        with pytest.raises(CheckpointError, match="no signature 'separate'"):
            load(url, server=HURRIED)
        assert remaining == []
        url, remaining = scripted_http(*[busy] * 5)
        with pytest.raises(ServerUnavailableError, match=r"it says busy.* after 3 attempts"):
            load(url, server=HURRIED)
        assert len(remaining) == 2

    @pytest.mark.parametrize("status", [400, 401, 429, 500, 504])
    def test_other_errors_are_said_once(self, status, scripted_http):
        url, remaining = scripted_http(*[(status, b'{"error": "no\\nway"}')] * 2)
        with pytest.raises(ServerError, match=rf"refused the request \({status}\): no way$") as raised:
            load(url, server=HURRIED)
        assert not isinstance(raised.value, ServerUnavailableError)
        assert len(remaining) == 1

    def test_an_answer_longer_than_allowed(self, scripted_http):
        url, _ = scripted_http((200, b" " * 2_000))
        with pytest.raises(ServerError, match="longer than max_message_bytes"):
            load(url, server=ServerOptions(max_message_bytes=1_000))

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    @pytest.mark.parametrize("answer", [b"", b"\x00\xff\x17garbage\r\n\r\n" * 100, b"SSH-2.0-OpenSSH_9.9\r\n"])
    def test_something_else_on_the_port(self, protocol, answer, scripted_socket):
        def serve(connection, stopping):
            connection.recv(1)
            connection.sendall(answer)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(2**16):
                pass

        with pytest.raises(ServerError):
            load(url_of(protocol, scripted_socket(serve)), server=HURRIED)

    def test_the_ports_mixed_up(self, server):
        with pytest.raises(ServerError, match=r"does not speak HTTP/1\.1"):
            load(url_of("rest", server.port), server=HURRIED)
        with pytest.raises(ServerError):
            load(url_of("grpc", server.rest_port), server=HURRIED)

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_a_server_that_never_answers(self, protocol, scripted_socket):
        port = scripted_socket(lambda connection, stopping: stopping.wait())
        start = time.monotonic()
        with pytest.raises(DeadlineError, match="within the deadline"):
            load(url_of(protocol, port), server=ServerOptions(deadline=0.5))
        assert time.monotonic() - start < 20

    @pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"])
    def test_a_server_that_drips(self, head, scripted_socket):
        def serve(connection, stopping):
            connection.sendall(head)
            while not stopping.wait(0.05):
                connection.sendall(b" ")

        start = time.monotonic()
        with pytest.raises(DeadlineError, match="within the deadline"):
            load(url_of("rest", scripted_socket(serve)), server=ServerOptions(deadline=0.5))
        assert time.monotonic() - start < 20


class TestGrpcCodes:
    @pytest.fixture
    def scripted(self, server):
        """A gRPC server whose Predict of `separate` raises these codes first; metadata is the real server's."""
        running = []

        def start(*codes, answer=None):
            remaining = list(codes)
            real = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(f"127.0.0.1:{server.port}"))

            class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
                def GetModelMetadata(self, request, context):
                    return real.GetModelMetadata(request)

                def Predict(self, request, context):
                    if request.model_spec.signature_name == "separate" and remaining:
                        context.abort(remaining.pop(0), "as\ntold")
                    return real.Predict(request) if answer is None else answer

            scripted = grpc.server(futures.ThreadPoolExecutor(4))
            prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), scripted)
            port = scripted.add_insecure_port("127.0.0.1:0")
            scripted.start()
            running.append(scripted)
            return port, remaining

        yield start
        for scripted in running:
            scripted.stop(None)

    def test_unavailable_is_tried_again(self, scripted, second_model, mixtures):
        port, remaining = scripted(*[grpc.StatusCode.UNAVAILABLE] * 2)
        found = load(url_of("grpc", port), server=HURRIED).separate(mixtures)
        np.testing.assert_allclose(found, second_model.separate(mixtures), atol=1e-5)
        assert remaining == []

    @pytest.mark.parametrize(
        ("code", "error", "message"),
        [
            (grpc.StatusCode.INTERNAL, ServerError, r"refused the request \(INTERNAL\): as told"),
            (grpc.StatusCode.INVALID_ARGUMENT, ServerError, r"\(INVALID_ARGUMENT\): as told"),
            (grpc.StatusCode.UNIMPLEMENTED, ServerError, "is no TensorFlow Serving: as told"),
            (grpc.StatusCode.RESOURCE_EXHAUSTED, ServerError, "too long or the server too busy: as told"),
            (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineError, "did not answer within the deadline"),
        ],
    )
    def test_other_codes_are_said_once(self, code, error, message, scripted, mixtures):
        port, remaining = scripted(code, code)
        loaded = load(url_of("grpc", port), server=HURRIED)
        with pytest.raises(error, match=message) as raised:
            loaded.separate(mixtures)
        assert type(raised.value) is error
        assert len(remaining) == 1

    def test_values_one_by_one_as_tensorflow_serving_sends_them(self, mixtures):
        expected = mixtures[:3].astype(np.float32)
        found = read_proto(tf.compat.v1.make_tensor_proto(expected.tolist(), tf.float32))
        np.testing.assert_array_equal(found, expected)
        filled = tf.make_tensor_proto(0.5, tf.float32, [2, 3])
        assert len(filled.float_val) == 1
        np.testing.assert_array_equal(read_proto(filled), np.full((2, 3), 0.5))
        filled.tensor_shape.dim[0].size = 2**40
        with pytest.raises(ValueError, match="holds 1 values"):
            read_proto(filled)
        proto = tf.make_tensor_proto([[b"a", b"\xff"]])
        assert read_proto(proto).tolist() == [[b"a", b"\xff"]]

    def test_protos_are_tensorflows(self, mixtures):
        request = predict_pb2.PredictRequest()
        fill_proto(request.inputs["mixture"], mixtures.transpose(2, 1, 0))
        np.testing.assert_array_equal(tf.make_ndarray(request.inputs["mixture"]), mixtures.transpose(2, 1, 0))
        fill_proto(request.inputs["text"], np.array([[b"a"], [b"\xff"]], object))
        assert tf.make_ndarray(request.inputs["text"]).tolist() == [[b"a"], [b"\xff"]]

    def test_a_broken_answer(self, scripted, run, mixtures):
        settings = json.dumps({"preset": run.preset.to_dict(), "config_hash": ""})

        def broken(change):
            answer = predict_pb2.PredictResponse()
            fill_proto(answer.outputs["sources"], np.zeros((len(mixtures), 2, 8, 8), np.float32))
            change(answer.outputs["sources"])
            return answer

        for change, message in (
            (lambda proto: setattr(proto, "tensor_content", proto.tensor_content[:-4]), "holds"),
            (lambda proto: setattr(proto, "tensor_content", proto.tensor_content[:-1]), "holds 0 values"),
            (lambda proto: setattr(proto, "dtype", 2), "dtype of a tensor is number 2"),
            (lambda proto: setattr(proto.tensor_shape, "unknown_rank", True), "not complete"),
            (lambda proto: setattr(proto.tensor_shape.dim[0], "size", -1), "not complete"),
        ):
            answer = broken(change)
            answer.outputs["settings"].CopyFrom(tf.make_tensor_proto([settings]))
            port, _ = scripted(answer=answer)
            with pytest.raises(ServerError, match=f"cannot be read: .*{message}"):
                load(url_of("grpc", port)).separate(mixtures)


class TestManifest:
    @pytest.fixture
    def changed(self, manifest, tmp_path):
        """Writes the export's manifest with one change, and returns its place."""

        def write(*change):
            copy = json.loads(json.dumps(manifest))
            *keys, last, value = change
            inner = copy
            for key in keys:
                inner = inner[key]
            if value is None:
                del inner[last]
            else:
                inner[last] = value
            place = tmp_path / "manifest.json"
            place.write_text(json.dumps(copy))
            return place

        return write

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_the_right_one(self, protocol, urls, exported, run):
        loaded = load(urls[protocol], server=ServerOptions(manifest=exported / "manifest.json"))
        assert loaded.metadata.preset == run.preset

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (("config_hash", "0" * 16), "config hash"),
            (
                ("signatures", "separate", "outputs", "sources", "shape", ["batch", 3, 8, 8]),
                r"'sources' of 'separate' is float32 \[any, 2, 8, 8\], not float32 \[any, 3, 8, 8\]",
            ),
            (("signatures", "separate", "inputs", "mixture", "dtype", "float16"), "not float16"),
            (("signatures", "separate", "outputs", "sources", None), "outputs of 'separate' are"),
            (("signatures", "more", {"inputs": {}, "outputs": {}}), "no signature 'more'"),
        ],
    )
    def test_another_model(self, protocol, change, message, urls, changed):
        with pytest.raises(CheckpointError, match=f"is not the model of .*{message}"):
            load(urls[protocol], server=ServerOptions(manifest=changed(*change)))

    def test_a_broken_manifest(self, urls, changed, tmp_path):
        for place in (changed("signatures", None), changed("signatures", "separate", [])):
            with pytest.raises(CheckpointError, match="no manifest of ours"):
                load(urls["grpc"], server=ServerOptions(manifest=place))
        with pytest.raises(CheckpointError, match="cannot be loaded"):
            load(urls["grpc"], server=ServerOptions(manifest=tmp_path / "none.json"))

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_a_model_that_does_not_say_its_settings(self, protocol, model, run, changed, mixtures, tmp_path):
        saved_model.write(model, tmp_path / "served/1")
        with DevelopmentServer([ServedModel("digits", tmp_path / "served")]) as server:
            url = url_of(protocol, server.rest_port if protocol == "rest" else server.port)
            loaded = load(url)
            assert loaded.metadata.preset is None
            np.testing.assert_allclose(loaded.separate(mixtures), model.separate(mixtures), atol=1e-5)
            with pytest.raises(ConfigError, match="--manifest"):
                Separator.load(url)
            place = changed("signatures", "settings", None)
            assert load(url, server=ServerOptions(manifest=place)).metadata.preset == run.preset

    @pytest.mark.parametrize("text", ["", "[]", '{"preset": {}}', '{"preset": {}, "config_hash": ""}', "[" * 10**5])
    def test_settings_that_are_not_ours(self, text, urls, monkeypatch):
        answers = itertools.repeat({"settings": np.array([text], object)})
        monkeypatch.setattr("vae_bss_tf.runtime.remote.rest.RestTransport.predict", lambda *_: next(answers))
        with pytest.raises(CheckpointError, match="settings that"):
            load(urls["rest"])


def test_a_host_is_reached_by_the_address_that_answers(urls, second_model, mixtures, monkeypatch):
    """The first address is of a family that this machine lacks, the second swallows what is sent to it."""
    with contextlib.ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):  # its queue is full now
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(silent.getsockname())
        answering = "127.0.0.1", int(urls["rest"].split(":")[2].split("/")[0])
        addresses = [(65_000, ("nowhere", 1)), (socket.AF_INET, silent.getsockname()), (socket.AF_INET, answering)]
        found = [(family, socket.SOCK_STREAM, 0, "", address) for family, address in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        url = urls["rest"].replace("127.0.0.1", "somewhere")
        with load(url, server=ServerOptions(deadline=8, retries=0)) as loaded:
            np.testing.assert_allclose(loaded.separate(mixtures[:1]), second_model.separate(mixtures[:1]), atol=1e-5)
