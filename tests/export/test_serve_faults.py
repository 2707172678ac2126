"""The development server as a process of its own: started, stopped, killed and restarted under load, and measured."""

import asyncio
import collections
import contextlib
import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest
import soundfile

from export.devserver.rest import RestServer
from export.devserver.store import ModelStore
from export.writers import saved_model
from vae_bss_tf import separate
from vae_bss_tf.config import AudioConfig, DataConfig, ModelConfig, Preset
from vae_bss_tf.errors import ServerError, ServerUnavailableError
from vae_bss_tf.model import MultiSourceVAE
from vae_bss_tf.phases import Recipe
from vae_bss_tf.runtime import load
from vae_bss_tf.runtime.remote import ServerOptions

REQUESTS = 3_000
AUDIO = AudioConfig(sample_rate=4_000.0, n_fft=64, hop_length=16, num_frames=32, num_bins=32, frame_pooling=4)


class Process:
    """`python -m export.serve` on loopback; it is over when the block is."""

    def __init__(self, *words):
        command = [sys.executable, "-m", "export.serve", *map(str, words)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.lines = []
        for line in self.process.stdout:
            self.lines.append(line.strip())
            if line.startswith("stop it"):
                break
        self.urls = [line.removeprefix("ready: ") for line in self.lines if line.startswith("ready: ")]
        self.ports = [int(re.search(r":(\d+)/", url)[1]) for url in self.urls]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def process(versions):
    with Process("--model", f"digits={versions}", "--port", 0, "--rest-port", 0) as process:
        yield process


def test_it_says_what_it_is_and_where(process):
    assert process.lines[0].startswith("development server: not for production")
    assert "digits: version 1, 2" in process.lines
    assert [url.split(":")[:2] for url in process.urls] == [["grpc", "//127.0.0.1"], ["http", "//127.0.0.1"]]


def test_it_listens_on_loopback_only(process):
    connections = psutil.Process(process.process.pid).net_connections("tcp")
    listening = [connection.laddr for connection in connections if connection.status == psutil.CONN_LISTEN]
    assert {address.port for address in listening} == set(process.ports)
    assert {address.ip.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}


def test_memory_is_flat(process, mixtures, second_model):
    loaded = load(process.urls[0])
    expected = second_model.separate(mixtures[:1])

    def send(count):
        for _ in range(count):
            found = loaded.separate(mixtures[:1])
        np.testing.assert_allclose(found, expected, atol=1e-5)
        return psutil.Process(process.process.pid).memory_info().rss

    before = send(1_000)
    assert send(REQUESTS) - before < 3 * 2**20


def test_memory_is_flat_under_bad_requests(process, mixtures):
    host = http.client.HTTPConnection("127.0.0.1", process.ports[1], timeout=60)

    def send(count):
        for _ in range(count):
            host.request("POST", "/v1/models/digits:predict", json.dumps({"inputs": [[1.0] * 50] * 20}))
            answer = host.getresponse()
            assert (answer.status, b"expected float32 (None, 8, 8)" in answer.read()) == (400, True)
        return psutil.Process(process.process.pid).memory_info().rss

    before = send(200)
    assert send(2_000) - before < 8 * 2**20


def test_it_follows_its_configuration_and_folders(versions, model, second_model, mixtures, tmp_path):
    """A new version is rolled out, promoted and rolled back while the server runs."""

    def write(labels):
        text = "".join(f'version_labels {{ key: "{label}" value: {version} }} ' for label, version in labels.items())
        place.write_text(
            f'model_config_list {{ config {{ name: "digits" base_path: "{folder}" '
            f"model_version_policy {{ all {{}} }} {text} }} }}"
        )

    def wait_for(line):
        end = time.monotonic() + 60
        while (found := process.process.stdout.readline().strip()) != line:
            assert found
            assert time.monotonic() < end

    folder, place = tmp_path / "digits", tmp_path / "models.config"
    shutil.copytree(versions / "1", folder / "1")
    write({"stable": 1})
    with Process("--models-config", place, "--port", 0, "--rest-port", 0, "--poll-seconds", 0.1) as process:
        stable = load(process.urls[0] + "/labels/stable")
        np.testing.assert_allclose(stable.separate(mixtures), model.separate(mixtures), atol=1e-5)
        shutil.copytree(versions / "2", tmp_path / "2")
        (tmp_path / "2").rename(folder / "2")
        wait_for("digits: version 1, 2; label stable = 1")
        np.testing.assert_allclose(stable.separate(mixtures), model.separate(mixtures), atol=1e-5)
        write({"stable": 2})
        wait_for("digits: version 1, 2; label stable = 2")
        np.testing.assert_allclose(stable.separate(mixtures), second_model.separate(mixtures), atol=1e-5)
        write({"stable": 7})
        process.process.stdout.readline()
        assert stable.separate(mixtures[0]).shape == (2, 8, 8)
        write({"stable": 1})
        wait_for("digits: version 1, 2; label stable = 1")
        np.testing.assert_allclose(stable.separate(mixtures), model.separate(mixtures), atol=1e-5)


def test_it_finishes_requests_in_progress(versions, model, mixtures):
    many = np.resize(mixtures, (2_000, 8, 8))  # more than a second of work
    with Process("--model", f"digits={versions}", "--port", 0, "--rest-port", 0) as process:
        host = http.client.HTTPConnection("127.0.0.1", process.ports[1], timeout=60)
        host.request("POST", "/v1/models/digits/versions/1:predict", json.dumps({"inputs": many.tolist()}))
        # A second connection is answered only after the first one's request has been taken up.
        load(process.urls[1])
        process.process.send_signal(signal.SIGTERM)
        assert process.process.stdout.readline().startswith("stopping")

        def load_until_refused():
            end = time.monotonic() + 60
            while time.monotonic() < end:
                load(process.urls[1], server=ServerOptions(retries=0)).close()

        with pytest.raises(ServerUnavailableError):
            load_until_refused()
        answer = host.getresponse()
        assert answer.status == 200
        found = np.asarray(json.loads(answer.read())["outputs"]["sources"][: len(mixtures)])
        np.testing.assert_allclose(found, model.separate(mixtures), atol=1e-5)
        assert process.process.wait(timeout=60) == 0


def test_who_connects_while_it_stops_is_not_waited_for():
    """Clients connect all the time, each with a request; before, most of these stops waited for the whole grace."""
    for _ in range(8):
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()
        listening = socket.create_server(("127.0.0.1", 0))
        server, place, ending = RestServer(ModelStore(), 2**20, 30.0), listening.getsockname(), threading.Event()
        asyncio.run_coroutine_threadsafe(server.start(listening), loop).result()

        held = collections.deque(maxlen=100)  # until the server has stopped: who leaves is not waited for anyway

        def connect(place=place, ending=ending, held=held):
            with contextlib.suppress(OSError):
                while not ending.is_set():
                    client = socket.create_connection(place, timeout=1)
                    client.sendall(b"GET /v1/models/x HTTP/1.1\r\nHost: x\r\n\r\n")
                    held.append(client)

        clients = [threading.Thread(target=connect) for _ in range(4)]
        for client in clients:
            client.start()
        time.sleep(0.05)
        try:
            asyncio.run_coroutine_threadsafe(server.stop(), loop).result(timeout=15)
        finally:
            ending.set()
            for client in clients:
                client.join()
            loop.call_soon_threadsafe(loop.stop)


def test_killed_and_restarted_under_load(versions, second_model):
    """Each answer that a client has is right; a request without one raised an error of ours; then all goes on."""
    mixtures = np.random.default_rng(0).random((512, 8, 8), np.float32)
    expected = second_model.separate(mixtures)
    words = ["--model", f"digits={versions}"]
    results = [[] for _ in range(4)]
    ending = threading.Event()

    def client(url, retries, mine, seed):
        rng = np.random.default_rng(seed)
        options = ServerOptions(retries=retries, backoff=0.02, max_backoff=0.2, deadline=240)  # a server starts slowly
        with load(url, server=options) as loaded:
            while not ending.is_set():
                index = rng.integers(len(mixtures), size=8)
                try:
                    mine.append((index, loaded.separate(mixtures[index])))
                except ServerError as error:
                    mine.append((index, error))
                    time.sleep(0.02)

    def more_answers(count):
        start = [len(mine) for mine in results]
        end = time.monotonic() + 240
        while any(
            sum(isinstance(found, np.ndarray) for _, found in mine[first:]) < count
            for mine, first in zip(results, start, strict=True)
        ):
            assert time.monotonic() < end, "no answers"
            time.sleep(0.02)

    with contextlib.ExitStack() as stack:
        process = stack.enter_context(Process(*words, "--port", 0, "--rest-port", 0))
        threads = [
            threading.Thread(target=client, args=(process.urls[i % 2], (0, 10_000)[i // 2], mine, i))
            for i, mine in enumerate(results)
        ]
        stack.callback(ending.set)
        for thread in threads:
            thread.start()
        more_answers(20)
        process.process.kill()
        process.process.wait()
        stack.enter_context(Process(*words, "--port", process.ports[0], "--rest-port", process.ports[1]))
        more_answers(20)
        ending.set()
        for thread in threads:
            thread.join()
    for mine, retries in zip(results, (0, 0, 10_000, 10_000), strict=True):
        errors = [found for _, found in mine if isinstance(found, Exception)]
        for index, found in mine:
            if not isinstance(found, Exception):
                np.testing.assert_allclose(found, expected[index], atol=1e-5)
        assert bool(errors) == (retries == 0), errors[:1]


class TestSeparateCommand:
    @pytest.fixture(scope="class")
    def audio_model(self):
        config = ModelConfig(input_shape=AUDIO.feature_shape, latent_dim=2, hidden_units=(8,))
        model = MultiSourceVAE(config)
        model({"mixture": np.zeros((1, *config.input_shape), np.float32)})
        return model, Preset(config, DataConfig("tones"), Recipe(), AUDIO)

    @pytest.fixture(scope="class")
    def served(self, audio_model, versions, tmp_path_factory):
        folder = tmp_path_factory.mktemp("served")
        model, preset = audio_model
        saved_model.write(model, folder / "tones/1", preset=preset)
        saved_model.write(model, folder / "silent/1")
        from export.devserver.config import named_models
        from export.devserver.server import DevelopmentServer

        words = [f"tones={folder}/tones", f"silent={folder}/silent", f"digits={versions}"]
        with DevelopmentServer(named_models(words)) as server:
            yield server

    @pytest.fixture
    def recording(self, tmp_path):
        place = tmp_path / "duet.wav"
        soundfile.write(place, np.random.default_rng(0).uniform(-0.5, 0.5, 12_000), 8_000, "FLOAT")
        return place

    def url(self, served, protocol, name):
        if protocol == "rest":
            return f"http://127.0.0.1:{served.rest_port}/v1/models/{name}"
        return f"grpc://127.0.0.1:{served.port}/{name}"

    @pytest.mark.parametrize("protocol", ["rest", "grpc"])
    def test_end_to_end(self, protocol, served, audio_model, recording, tmp_path, capsys):
        url = self.url(served, protocol, "tones")
        words = [str(recording), "--model", url, "--output", str(tmp_path / "stems"), "--quiet", "--deadline", "30"]
        assert separate.main(words) == 0
        assert f"model: {url}, 2 sources" in capsys.readouterr().out
        from vae_bss_tf.audio.separator import Separator

        samples, rate = soundfile.read(recording)
        expected = Separator(audio_model[0], AUDIO).separate(samples, rate)
        found = [soundfile.read(tmp_path / f"stems/duet_source{k}.wav")[0] for k in (1, 2)]
        np.testing.assert_allclose(found, expected, atol=1e-5)

    @pytest.mark.parametrize("protocol", ["rest", "grpc"])
    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("digits", "is no model of audio"),
            ("silent", "does not say its settings; give the manifest.json"),
            ("other", "has no such model"),
        ],
    )
    def test_bad_models_end_in_one_line(self, protocol, name, message, served, recording, tmp_path, capsys):
        words = [str(recording), "--model", self.url(served, protocol, name), "--output", str(tmp_path / "stems")]
        assert separate.main(words) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert message in error

    def test_flags_of_a_server_need_a_url(self, recording, tmp_path, capsys):
        words = [str(recording), "--model", str(tmp_path), "--output", str(tmp_path / "stems"), "--deadline", "3"]
        assert separate.main(words) == 2
        assert "is no URL" in capsys.readouterr().err
