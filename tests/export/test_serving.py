"""The deployment folder: each file by the schema of what reads it, and every change one that a server can follow."""

import contextlib
import http.server
import json
import os
import shlex
import shutil
import subprocess
import threading
from pathlib import Path

import kubernetes_validate
import numpy as np
import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from tensorflow_serving.config import model_server_config_pb2

from export import serve
from export.deployment.files import settings
from export.deployment.folder import ServedExport
from export.deployment.versions import Versions
from export.deployment.warmup import BATCH_SIZES, WARMUP_FILE
from export.devserver.config import read_config
from export.devserver.server import DevelopmentServer
from export.serving import main
from export.writers import saved_model
from vae_bss_tf.config import AudioConfig, DataConfig, ModelConfig, Preset
from vae_bss_tf.errors import ConfigError
from vae_bss_tf.files import sha256
from vae_bss_tf.model import MultiSourceVAE
from vae_bss_tf.phases import Recipe
from vae_bss_tf.runtime import load

REPOSITORY = Path(__file__).resolve().parents[2]
AUDIO = AudioConfig(sample_rate=4_000.0, n_fft=128, hop_length=32, num_frames=8, num_bins=16, power=0.5)


def content(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def run(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def exported_audio(tmp_path_factory):
    """An export of the two SavedModels of a model of audio, as its manifest would describe it."""
    folder = tmp_path_factory.mktemp("exports") / "tones"
    config = ModelConfig(input_shape=AUDIO.feature_shape, latent_dim=3, hidden_units=(8,))
    model = MultiSourceVAE(config)
    saved_model.write(model, folder / "saved_model/1")
    saved_model.write_waveform(model, AUDIO, folder / "saved_model_waveform/1")
    formats = {
        name: {
            "path": f"{name}/1",
            "files": {
                str(file.relative_to(folder)): {"sha256": sha256(file)}
                for file in (folder / name).rglob("*")
                if file.is_file()
            },
        }
        for name in ("saved_model", "saved_model_waveform")
    }
    preset = Preset(config, DataConfig("tones"), Recipe(), AUDIO)
    signatures = {"separate": {}, "waveform": {"inputs": {"mixture": {"shape": ["batch", AUDIO.num_samples]}}}}
    manifest = {"preset": preset.to_dict(), "formats": formats, "signatures": signatures}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def made(exported, exported_audio, tmp_path_factory):
    folder = tmp_path_factory.mktemp("deployments") / "serving"
    assert run(f"mnist={exported}", exported_audio, "--to", folder, "--cpus", 3) == 0
    return folder


@pytest.fixture
def deployment(made, tmp_path):
    return shutil.copytree(made, tmp_path / "serving")


def models_config(folder):
    text = (folder / "models.config").read_text()
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    return {model.name: model for model in config.model_config_list.config}


def state(folder, name="mnist"):
    model = models_config(folder)[name]
    return list(model.model_version_policy.specific.versions), dict(model.version_labels)


# What the Python packages of TensorFlow Serving lack, from its config/monitoring_config.proto and
# servables/tensorflow/session_bundle_config.proto: fields as (type, name), numbered from 1.
MESSAGES = {
    "PrometheusConfig": [("bool", "enable"), ("string", "path")],
    "MonitoringConfig": [("PrometheusConfig", "prometheus_config")],
    "BatchingParameters": [
        (".google.protobuf.Int64Value", "max_batch_size"),
        (".google.protobuf.Int64Value", "batch_timeout_micros"),
        (".google.protobuf.Int64Value", "max_enqueued_batches"),
        (".google.protobuf.Int64Value", "num_batch_threads"),
        (".google.protobuf.StringValue", "thread_pool_name"),
        ("int64", "allowed_batch_sizes"),
        ("bool", "pad_variable_length_inputs"),
    ],
}


def parse(path, name):
    """Parses a text file as one of `MESSAGES`."""
    kinds = descriptor_pb2.FieldDescriptorProto
    scalars = {"bool": kinds.TYPE_BOOL, "string": kinds.TYPE_STRING, "int64": kinds.TYPE_INT64}
    file = descriptor_pb2.FileDescriptorProto(
        name="serving.proto", package="tensorflow.serving", syntax="proto3", dependency=[wrappers_pb2.DESCRIPTOR.name]
    )
    for message, fields in MESSAGES.items():
        described = file.message_type.add(name=message)
        for number, (kind, field) in enumerate(fields, 1):
            repeated = field == "allowed_batch_sizes"
            described.field.add(
                name=field,
                number=number,
                label=kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL,
                type=scalars.get(kind, kinds.TYPE_MESSAGE),
                type_name=None if kind in scalars else kind,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    message_class = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tensorflow.serving.{name}"))
    return text_format.Parse(path.read_text(), message_class())


class TestFiles:
    """What a fresh folder holds."""

    def test_models_config(self, made):
        models = models_config(made)
        assert list(models) == ["mnist", "tones", "tones-waveform"]
        for name, model in models.items():
            assert model.base_path == f"/models/{name}"
            assert model.model_platform == "tensorflow"
            assert state(made, name) == ([1], {"stable": 1})

    def test_batching_parameters(self, made):
        parameters = parse(made / "batching_parameters.txt", "BatchingParameters")
        assert tuple(parameters.allowed_batch_sizes) == BATCH_SIZES
        assert parameters.max_batch_size.value == BATCH_SIZES[-1]
        assert parameters.num_batch_threads.value == 3
        assert parameters.max_enqueued_batches.value >= 1
        assert parameters.HasField("batch_timeout_micros")
        assert parameters.batch_timeout_micros.value == 0

    def test_monitoring(self, made):
        monitoring = parse(made / "monitoring.config", "MonitoringConfig")
        assert monitoring.prometheus_config.enable
        assert monitoring.prometheus_config.path == "/monitoring/prometheus/metrics"

    def test_a_model_is_what_was_exported(self, made, exported, model, mixtures):
        folder = made / "models/mnist/1"
        served, original = content(folder), content(exported / "saved_model/1")
        added = {WARMUP_FILE, WARMUP_FILE.parent / "manifest.json"}
        assert {name: served[name] for name in served.keys() - added} == original
        assert served.keys() - original.keys() == added
        assert served[WARMUP_FILE.parent / "manifest.json"] == (exported / "manifest.json").read_bytes()
        found = load(made / "models/mnist").outputs(mixtures)
        for name, expected in model({"mixture": mixtures}).items():
            np.testing.assert_allclose(found[name], expected, atol=1e-5)

    def test_a_model_of_audio_is_two(self, made, exported_audio):
        for name, kind in (("tones", "saved_model"), ("tones-waveform", "saved_model_waveform")):
            path = "variables/variables.data-00000-of-00001"
            assert sha256(made / "models" / name / "1" / path) == sha256(exported_audio / kind / "1" / path)
            assert (made / "models" / name / "1" / WARMUP_FILE).is_file()

    def test_all_may_read_it(self, made):
        for path in [made, *made.rglob("*")]:
            assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644)

    def test_the_committed_example_is_what_is_made(self, exported, tmp_path):
        assert run(f"mnist={exported}", "--to", tmp_path / "serving") == 0
        for path in (tmp_path / "serving").iterdir():
            if path.is_file() and path.name != "README.md":
                assert (REPOSITORY / "deploy/serving" / path.name).read_text() == path.read_text()


class TestCompose:
    """docker-compose.yml."""

    @pytest.fixture
    def services(self, made):
        return yaml.safe_load((made / "docker-compose.yml").read_text())["services"]

    def test_it_passes_composes_own_check(self, made):
        def works(command):
            return (
                shutil.which(command[0]) and subprocess.run([*command, "version"], capture_output=True).returncode == 0
            )

        found = [command for command in (["docker-compose"], ["docker", "compose"]) if works(command)]
        if not found:
            pytest.skip("needs docker-compose or docker compose")
        for command in found:
            done = subprocess.run(
                [*command, "-f", made / "docker-compose.yml", "--profile", "gpu", "config"],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert set(yaml.safe_load(done.stdout)["services"]) == {"cpu", "gpu"}

    def test_only_the_cpu_starts_by_itself(self, services):
        assert [name for name, service in services.items() if "profiles" not in service] == ["cpu"]
        assert services["gpu"]["image"] == services["cpu"]["image"] + "-gpu"
        (device,) = services["gpu"]["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}

    def test_what_the_server_is_told_to_read_is_mounted(self, made, services):
        for service in services.values():
            mounts = [volume.split(":") for volume in service["volumes"]]
            assert {mode for _, _, mode in mounts} == {"ro"}
            places = {inside: made / outside for outside, inside, _ in mounts}
            files = [a.split("=")[1] for a in service["command"] if "_file=" in a]
            assert len(files) == 3
            for file in files:
                assert (places[str(Path(file).parent)] / Path(file).name).is_file()
            for name in models_config(made):
                assert (places["/models"] / name / "1/saved_model.pb").is_file()

    def test_ports_are_bound_to_loopback(self, services):
        for service in services.values():
            assert service["ports"] == ["127.0.0.1:8500:8500", "127.0.0.1:8501:8501"]

    @pytest.mark.parametrize(
        ("answers", "healthy"),
        [
            ({"mnist": "AVAILABLE", "tones": "AVAILABLE", "tones-waveform": "AVAILABLE"}, True),
            ({"mnist": "AVAILABLE", "tones": "LOADING", "tones-waveform": "AVAILABLE"}, False),
            ({"mnist": "AVAILABLE", "tones": "AVAILABLE"}, False),
            (None, False),
        ],
    )
    def test_the_health_check_asks_for_every_model(self, made, services, answers, healthy):
        with status_server(answers) as port:
            kind, *command = services["cpu"]["healthcheck"]["test"]
            assert kind == "CMD"
            inside = {"$$": "$", "/config/": f"{made}/", "/8501": f"/{port}"}
            for old, new in inside.items():
                command[-1] = command[-1].replace(old, new)
            done = subprocess.run(command, capture_output=True, timeout=20, check=False)
        assert (done.returncode == 0) == healthy


@contextlib.contextmanager
def status_server(states):
    """A server on loopback that says of each model what TensorFlow Serving says; None: a port that nobody serves."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.removeprefix("/v1/models/")
            known = states is not None and name in states
            version = {"version": "1", "state": states[name]} if known else {}
            self.send_response(200 if known else 404)
            self.end_headers()
            self.wfile.write(json.dumps({"model_version_status": [version]}).encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if states is None:
            server.server_close()
        else:
            threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        if states is not None:
            server.shutdown()


class TestKubernetes:
    """kubernetes.yaml and kubernetes-config.yaml."""

    @pytest.fixture
    def objects(self, made):
        texts = [(made / name).read_text() for name in ("kubernetes.yaml", "kubernetes-config.yaml")]
        return {each["kind"]: each for text in texts for each in yaml.safe_load_all(text)}

    @pytest.mark.parametrize("version", ["1.27", "1.31", kubernetes_validate.latest_version()])
    def test_every_object_is_valid(self, objects, version):
        kinds = {"ConfigMap", "PersistentVolumeClaim", "Deployment", "Service", "HorizontalPodAutoscaler"}
        assert set(objects) == kinds
        for each in objects.values():
            kubernetes_validate.validate(each, version, strict=True)

    def test_the_configuration_is_that_of_the_folder(self, made, objects):
        data = objects["ConfigMap"]["data"]
        assert data == {name: (made / name).read_text() for name in data}
        assert set(data) == {"models.config", "batching_parameters.txt", "monitoring.config"}

    def test_references_lead_somewhere(self, made, objects):
        pod = objects["Deployment"]["spec"]["template"]
        (container,) = pod["spec"]["containers"]
        compose = yaml.safe_load((made / "docker-compose.yml").read_text())["services"]["cpu"]
        assert container["image"] == compose["image"]
        assert container["command"] + container["args"] == compose["entrypoint"] + compose["command"]
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        assert volumes["config"]["configMap"]["name"] == objects["ConfigMap"]["metadata"]["name"]
        claim = objects["PersistentVolumeClaim"]["metadata"]["name"]
        assert volumes["models"]["persistentVolumeClaim"]["claimName"] == claim
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert mounts == {"/config": "config", "/models": "models", "/tmp": "tmp"}
        assert objects["Deployment"]["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
        assert objects["Service"]["spec"]["selector"] == pod["metadata"]["labels"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports == {"grpc": 8500, "rest": 8501}
        assert {port["targetPort"] for port in objects["Service"]["spec"]["ports"]} == set(ports)
        for probe in ("startupProbe", "readinessProbe"):
            assert container[probe]["httpGet"] == {"path": "/v1/models/mnist", "port": "rest"}
        assert container["livenessProbe"]["tcpSocket"] == {"port": "grpc"}

    def test_replicas_can_be_added(self, objects):
        scaled, deployment = objects["HorizontalPodAutoscaler"]["spec"], objects["Deployment"]
        named = {"apiVersion": deployment["apiVersion"], "kind": "Deployment", "name": deployment["metadata"]["name"]}
        assert scaled["scaleTargetRef"] == named
        assert 1 <= scaled["minReplicas"] < scaled["maxReplicas"]
        (metric,) = scaled["metrics"]
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        assert metric["resource"]["name"] in container["resources"]["requests"]  # the utilisation is of the request
        assert "replicas" not in deployment["spec"]  # kubectl apply would undo what the autoscaler did
        assert objects["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteMany"]  # replicas on other nodes
        assert "--grpc_channel_arguments=grpc.max_connection_age_ms=60000" in container["args"]

    def test_it_is_confined(self, objects):
        pod = objects["Deployment"]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["resources"]["limits"] == {"cpu": "3", "memory": "4Gi"}
        assert container["resources"]["requests"]["cpu"] == "3"


class TestVersions:
    """Adding, trying, promoting, going back."""

    def test_a_second_version_is_the_canary_until_it_is_promoted(self, deployment, exported, capsys):
        before = content(deployment / "models")
        assert run(f"mnist={exported}", "--to", deployment, "--add-version") == 0
        assert state(deployment) == ([1, 2], {"stable": 1, "canary": 2})
        assert "mnist: stable 1, canary 2; loaded: 1, 2" in capsys.readouterr().out
        assert content(deployment / "models/mnist/2") == content(deployment / "models/mnist/1")
        assert {name: content(deployment / "models")[name] for name in before} == before

        assert run("--to", deployment, "--promote", "mnist", 2) == 0
        assert state(deployment) == ([1, 2], {"stable": 2})
        assert run("--to", deployment, "--promote", "mnist", 1) == 0
        assert state(deployment) == ([1], {"stable": 1})
        assert run("--to", deployment, "--canary", "mnist", 2) == 0
        assert state(deployment) == ([1, 2], {"stable": 1, "canary": 2})
        assert run("--to", deployment, "--promote", "mnist", 1) == 0
        assert state(deployment) == ([1], {"stable": 1})
        assert state(deployment, "tones") == ([1], {"stable": 1})

    def test_changes_reach_the_readme_and_the_config_map(self, deployment, exported):
        assert run(f"mnist={exported}", "--to", deployment, "--add-version", "--version", 7) == 0
        config = yaml.safe_load((deployment / "kubernetes-config.yaml").read_text())["data"]["models.config"]
        assert config == (deployment / "models.config").read_text()
        assert "| `mnist` | 1 | 7 | 1, 7 |" in (deployment / "README.md").read_text()

    def test_what_an_operator_has_tuned_stays(self, deployment, exported):
        tuned = {}
        for name in settings("mnist", 2):
            # An indented first line must not become the indentation of all in the ConfigMap.
            tuned[name] = "  # by us\n" + (deployment / name).read_text() + "# tuned, with no newline at the end"
            (deployment / name).write_text(tuned[name])
        umask = os.umask(0o077)
        try:
            assert run(f"mnist={exported}", "--to", deployment, "--add-version") == 0
        finally:
            os.umask(umask)
        assert {name: (deployment / name).read_text() for name in tuned} == tuned
        data = yaml.safe_load((deployment / "kubernetes-config.yaml").read_text())["data"]
        assert data["batching_parameters.txt"] == tuned["batching_parameters.txt"] + "\n"
        assert data["models.config"] == (deployment / "models.config").read_text()
        assert (deployment / "models.config").stat().st_mode & 0o777 == 0o644

    def test_another_model_joins(self, deployment, exported):
        assert run(f"digits={exported}", "--to", deployment, "--add-version") == 0
        assert state(deployment, "digits") == ([1], {"stable": 1})
        assert list(models_config(deployment)) == ["mnist", "tones", "tones-waveform", "digits"]

    def test_every_change_is_one_that_the_server_can_follow(self):
        """All changes of up to four steps, against the rules of TensorFlow Serving's ReloadConfig."""
        seen, states = set(), [Versions.first(1)]
        for _ in range(4):
            following = []
            for before in states:
                for change in (before.try_out, before.promote):
                    for version in (1, 2, 3):
                        with contextlib.suppress(ConfigError):
                            after = change(version, "mnist")
                            seen.add((before, after))
                            following.append(after)
            states = following
        assert len(seen) > 20
        for before, after in seen:
            assert set(after.labels.values()) <= set(after.loaded)
            assert list(after.loaded) == sorted(set(after.loaded))
            for label, version in after.labels.items():
                in_use = before.labels.get(label, version) != version
                assert not in_use or version in before.loaded
            if after.canary is None:
                assert max(after.loaded) == after.stable


class TestBadInput:
    """One line on stderr, exit code 2, and everything as it was."""

    @pytest.fixture
    def refused(self, capsys):
        def refused(*arguments):
            assert run(*arguments) == 2
            error = capsys.readouterr().err.strip().splitlines()
            assert error[-1].startswith("error: ")
            return error[-1]

        return refused

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ("EXPORTED", "is no deployment of ours"),
            ("", "nothing to serve"),
            ("NEW/none", "is no export"),
            ("a/b=EXPORTED", "cannot be the name of a model"),
            ("=EXPORTED", "cannot be the name of a model"),
            ("mnist=EXPORTED mnist=EXPORTED", "two models would be named mnist"),
            ("mnist=EXPORTED --version 0", "is no version"),
            ("mnist=EXPORTED --version two", "is no version"),
        ],
    )
    def test_making(self, words, said, refused, exported, tmp_path):
        target = tmp_path / "serving"
        if said == "is no deployment of ours":
            target.mkdir()
            (target / "precious").write_text("data")
            words += " --force"
        before = content(tmp_path)
        words = words.replace("EXPORTED", str(exported)).replace("NEW", str(tmp_path))
        assert said in refused(*shlex.split(words), "--to", target)
        assert content(tmp_path) == before

    def test_an_export_without_a_saved_model(self, refused, tmp_path):
        said = refused(REPOSITORY / "saved_models/mnist", "--to", tmp_path / "out")
        assert "has no SavedModel; export the run with --formats saved_model" in said
        assert list(tmp_path.iterdir()) == []

    def test_a_damaged_export(self, refused, exported, tmp_path):
        damaged = shutil.copytree(exported, tmp_path / "damaged")
        (damaged / "saved_model/1/saved_model.pb").write_bytes(b"garbage")
        assert f"is not the file that {damaged}/manifest.json lists" in refused(damaged, "--to", tmp_path / "out")
        manifest = json.loads((damaged / "manifest.json").read_text())
        for broken in (
            "{",
            "{}",
            json.dumps(manifest | {"formats": {"saved_model": {}}}),
            json.dumps(manifest | {"signatures": {}}),
        ):
            (damaged / "manifest.json").write_text(broken)
            assert "manifest.json cannot be loaded" in refused(damaged, "--to", tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_a_version_that_takes_waveforms_of_another_length(self, refused, deployment, exported_audio, tmp_path):
        other = shutil.copytree(exported_audio, tmp_path / "tones")
        manifest = json.loads((other / "manifest.json").read_text())
        manifest["signatures"]["waveform"]["inputs"]["mixture"]["shape"] = ["batch", 2 * AUDIO.num_samples]
        (other / "manifest.json").write_text(json.dumps(manifest))
        said = refused(other, "--to", deployment, "--add-version")
        assert "takes or gives other shapes than version 1 of tones-waveform" in said

    def test_a_folder_that_is_there(self, refused, deployment, exported):
        before = content(deployment)
        assert "--force" in refused(exported, "--to", deployment)
        assert content(deployment) == before

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ("mnist=EXPORTED --add-version --version 1", "has a version 1 of mnist"),
            ("tones=EXPORTED --add-version", "takes or gives other shapes than version 1 of tones"),
            ("--promote mnist 2", "has no version 2 of mnist; it has 1"),
            ("--promote minst 1", "serves no minst; it serves mnist"),
            ("--promote mnist latest", "is no version"),
            ("--canary mnist 1", "is the stable one"),
            ("mnist=EXPORTED --promote mnist 1", "take no export"),
            ("mnist=EXPORTED --add-version --cpus 8", "--cpus sizes a deployment when it is made"),
            ("--promote mnist 1 --version 3", "--version and --data-dir are for new versions"),
        ],
    )
    def test_changing(self, words, said, refused, deployment, exported):
        before = content(deployment)
        words = words.replace("EXPORTED", str(exported))
        assert said in refused(*shlex.split(words), "--to", deployment)
        assert content(deployment) == before

    def test_a_change_that_the_server_could_not_follow(self, refused, deployment, exported):
        assert run(f"mnist={exported}", "--to", deployment, "--add-version") == 0
        said = refused(f"mnist={exported}", "--to", deployment, "--add-version")
        assert "version 2 of mnist is on trial" in said
        assert not (deployment / "models/mnist/3").exists()
        assert run("--to", deployment, "--promote", "mnist", 2) == 0
        assert run("--to", deployment, "--promote", "mnist", 1) == 0
        said = refused("--to", deployment, "--promote", "mnist", 2)
        assert "version 2 of mnist is not loaded" in said
        assert "--canary mnist 2" in said

    def test_no_deployment(self, refused, tmp_path, exported):
        assert "cannot be read" in refused("--to", tmp_path, "--promote", "mnist", 1)
        (tmp_path / "models.config").write_text("model_config_list { config { nome: 'mnist' } }")
        assert "cannot be read" in refused(exported, "--to", tmp_path, "--add-version")


class TestServed:
    """What the folder serves, by the development server that reads the same files."""

    def test_from_a_folder_to_an_answer(self, deployment, exported, model, mixtures):
        assert run(f"mnist={exported}", "--to", deployment, "--add-version") == 0
        models = read_config(deployment / "models.config", deployment / "models")
        expected = model.separate(mixtures)
        with DevelopmentServer(models) as server:
            described = set(server.store.describe()[0].split("; "))
            assert described == {"mnist: version 1, 2", "label stable = 1", "label canary = 2"}
            for place in ("", "/labels/stable", "/labels/canary", "/versions/1"):
                with load(f"grpc://127.0.0.1:{server.port}/mnist{place}") as served:
                    np.testing.assert_allclose(served.separate(mixtures), expected, atol=1e-5)
                with load(f"http://127.0.0.1:{server.rest_port}/v1/models/mnist{place}") as served:
                    np.testing.assert_allclose(served.separate(mixtures), expected, atol=1e-5)

    def test_the_root_stands_for_the_containers_folder(self, made, tmp_path):
        models = read_config(made / "models.config", made / "models")
        assert [model.base_path for model in models] == [made / "models" / model.name for model in models]
        with pytest.raises(ConfigError, match="mnist: /models/mnist has no version 1"):
            read_config(made / "models.config")
        text = (made / "models.config").read_text().replace("/models/mnist", "/elsewhere/mnist")
        (tmp_path / "models.config").write_text(text)
        with pytest.raises(ConfigError, match="base_path of mnist is /elsewhere/mnist; --models-root stands for"):
            read_config(tmp_path / "models.config", made / "models")

    def test_the_root_goes_with_a_configuration(self, capsys):
        assert serve.main(["--model", "mnist=here", "--models-root", "there"]) == 2
        assert "--models-root goes with --models-config" in capsys.readouterr().err


def test_force_replaces_a_deployment(deployment, exported):
    assert run(f"mnist={exported}", "--to", deployment, "--force") == 0
    assert list(models_config(deployment)) == ["mnist"]
    assert [path.name for path in (deployment / "models").iterdir()] == ["mnist"]
    assert [path.name for path in deployment.parent.iterdir()] == ["serving"]


def test_a_version_that_cannot_be_written_leaves_the_deployment(deployment, exported, monkeypatch):
    from export.deployment import folder

    def fail(*_):
        raise OSError(28, "No space left on device")

    before = content(deployment)
    monkeypatch.setattr(folder, "write_warmup", fail)
    assert run(f"mnist={exported}", "--to", deployment, "--add-version") == 2
    assert content(deployment) == before


def test_an_equals_sign_in_a_folder_is_no_name(exported, tmp_path):
    (tmp_path / "lr=0.1").mkdir()
    folder = shutil.copytree(exported, tmp_path / "lr=0.1" / "digits")
    assert ServedExport.read(str(folder)).names == ["digits"]
    assert ServedExport.read(f"mine={folder}").names == ["mine"]
