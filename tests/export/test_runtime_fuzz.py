"""Whatever a manifest holds and whatever a server answers: one line of a `VaeBssError`, and nothing else.

Hypothesis draws the cases: JSON of any kind, and what is ours with one part replaced.
"""

import http.server
import json
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tensorflow_serving.apis import predict_pb2

from vae_bss_tf.errors import VaeBssError
from vae_bss_tf.runtime import OUTPUTS, ServerOptions, load
from vae_bss_tf.runtime.remote.tensors import fill_proto, read_proto

BOUNDED = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # a failure is not made smaller, which takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def refusal(call, kind=VaeBssError):
    """Calls what may raise an error of this kind and no other, and returns its message."""
    try:
        call()
    except kind as error:
        return str(error)
    return ""


def check(call):
    """Calls what may raise nothing but a `VaeBssError` of one line."""
    assert "\n" not in refusal(call)


class TestManifests:
    @pytest.fixture(scope="class")
    def folder(self, exported, tmp_path_factory):
        """An export of one file, without its manifest."""
        folder = tmp_path_factory.mktemp("fuzzed")
        (folder / "float32.onnx").write_bytes((exported / "float32.onnx").read_bytes())
        return folder

    @pytest.fixture(scope="class")
    def ours(self, manifest):
        return {**manifest, "formats": {"onnx_float32": manifest["formats"]["onnx_float32"]}}

    @BOUNDED
    @given(st.data())
    def test_any_json(self, folder, json_values, data):
        (folder / "manifest.json").write_text(json.dumps(data.draw(json_values)))
        check(lambda: load(folder))
        check(lambda: load(folder / "float32.onnx"))

    @BOUNDED
    @given(st.data())
    def test_one_part_changed(self, folder, ours, json_changes, data):
        (folder / "manifest.json").write_text(json.dumps(data.draw(json_changes(ours))))
        check(lambda: load(folder))

    @BOUNDED
    @given(st.binary(max_size=200))
    def test_any_bytes(self, folder, content):
        (folder / "manifest.json").write_bytes(content)
        check(lambda: load(folder))


class Scripted:
    """An HTTP server that answers `GET` and `POST` with these bodies."""

    def __init__(self):
        self.headers, self.bodies = {}, {"GET": b"", "POST": b""}
        script = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                body = script.bodies[self.command]
                self.send_response(200)
                for name, value in {"Content-Length": str(len(body)), **script.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = answer

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=[0.01], daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/models/digits"

    def say(self, metadata, answer):
        """Answers with these JSON values."""
        self.headers = {}
        self.bodies = {"GET": json.dumps(metadata).encode(), "POST": json.dumps(answer).encode()}

    def separate(self):
        hurried = ServerOptions(deadline=2, retries=0, backoff=0.01)
        with load(self.url, server=hurried) as model:
            assert np.isfinite(model.outputs(np.zeros((1, 8, 8)))["sources"]).all()


@pytest.fixture(scope="module")
def scripted():
    script = Scripted()
    yield script
    script.server.shutdown()
    script.server.server_close()


def tensor(*sizes):
    return {
        "dtype": "DT_FLOAT",
        "tensor_shape": {"dim": [{"size": str(size)} for size in sizes], "unknown_rank": False},
    }


SHAPES = {"sources": (2, 8, 8), "estimates": (2, 8, 8), "latent_mean": (2, 5), "latent_log_variance": (2, 5)}
SIGNATURES = {
    "separate": {
        "inputs": {"mixture": tensor(-1, 8, 8)},
        "outputs": {name: tensor(-1, *SHAPES[name]) for name in OUTPUTS},
    }
}
METADATA = {"metadata": {"signature_def": {"signature_def": SIGNATURES}}}
ANSWER = {"predictions": [{name: np.zeros(SHAPES[name]).tolist() for name in OUTPUTS}]}


class TestRest:
    def test_the_script_is_a_server(self, scripted):
        scripted.say(METADATA, ANSWER)
        scripted.separate()

    @BOUNDED
    @given(st.data())
    def test_metadata(self, scripted, json_changes, data):
        scripted.say(data.draw(json_changes(METADATA)), ANSWER)
        check(scripted.separate)

    @BOUNDED
    @given(st.data())
    def test_answers(self, scripted, json_changes, data):
        scripted.say(METADATA, data.draw(json_changes(ANSWER)))
        check(scripted.separate)

    @settings(BOUNDED, max_examples=30)
    @given(st.binary(max_size=50), st.sampled_from(["0", "1", "49", "-1", "x", "9" * 30, "1, 2"]))
    def test_bytes_and_their_number(self, scripted, body, length):
        scripted.headers = {"Content-Length": length, "Content-Type": "image/png", "Connection": "close"}
        scripted.bodies = {"GET": body, "POST": body}
        check(scripted.separate)
        scripted.headers = {"Transfer-Encoding": "chunked", "Connection": "close"}
        check(scripted.separate)


class TestGrpc:
    @BOUNDED
    @given(st.binary(max_size=60), st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 9), max_size=4))
    def test_tensors(self, content, shape):
        proto = predict_pb2.PredictResponse().outputs["sources"]
        fill_proto(proto, np.zeros((1, 2), np.float32))
        proto.tensor_content = content
        del proto.tensor_shape.dim[:]
        for size in shape:
            proto.tensor_shape.dim.add().size = size
        refusal(lambda: read_proto(proto, max_filled=100), ValueError)
