"""The files beside the models in a deployment folder: what the server reads, and what starts it."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from export.deployment.versions import CANARY, STABLE, Versions
from export.deployment.warmup import BATCH_SIZES
from vae_bss_tf.errors import CheckpointError, ConfigError
from vae_bss_tf.files import replacing

MODELS_CONFIG = "models.config"
MODELS = "models"
IMAGE = "tensorflow/serving:2.21.0"
GRPC_PORT = 8500
REST_PORT = 8501
METRICS_PATH = "/monitoring/prometheus/metrics"

_SETTINGS = ("batching_parameters.txt", "monitoring.config")
_BATCH_TIMEOUT_MICROS = 1000
_MAX_ENQUEUED_BATCHES = 100


def settings(name: str, cpus: int) -> dict[str, str]:
    """The files that are written once; an operator may change them.

    Args:
        name: The model that Kubernetes asks after to see whether the server is ready.
        cpus: Processors that the server is given.

    Returns:
        Texts by name of file.
    """
    return {
        "batching_parameters.txt": _batching_parameters(cpus),
        "monitoring.config": f'prometheus_config {{\n  enable: true\n  path: "{METRICS_PATH}"\n}}\n',
        "docker-compose.yml": _compose(cpus),
        "kubernetes.yaml": _kubernetes(name, cpus),
    }


def write_state(folder: Path, models: Mapping[str, Versions]) -> None:
    """Writes the files that follow each change of a model: the server's list, its copy for Kubernetes, the README.

    Args:
        folder: The deployment folder, with the files of `settings` in it.
        models: The versions of each model, by name.

    Raises:
        CheckpointError: A file of `settings` is missing or is no text.
    """
    texts = read_settings(folder)
    texts[MODELS_CONFIG] = models_config(models)
    _write(folder / "kubernetes-config.yaml", _config_map(texts))
    _write(folder / "README.md", _readme(models))
    # Last: a running server follows it.
    _write(folder / MODELS_CONFIG, texts[MODELS_CONFIG])


def read_settings(folder: Path) -> dict[str, str]:
    """Reads the files that an operator may have tuned and that Kubernetes needs a copy of.

    Args:
        folder: The deployment folder.

    Returns:
        Texts by name of file.

    Raises:
        CheckpointError: One is missing or is no text.
    """
    texts = {}
    for name in _SETTINGS:
        try:
            texts[name] = (folder / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", "no text")
            raise CheckpointError(f"{folder / name} cannot be read ({reason}); put it back.") from error
    return texts


def _write(path: Path, text: str) -> None:
    # The server runs as a user of its own, whatever the umask here.
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
        partial.chmod(0o644)


def models_config(models: Mapping[str, Versions]) -> str:
    """Writes a ModelServerConfig as text.

    Args:
        models: The versions of each model, by name.

    Returns:
        The text; each model's folder is `/models/NAME`.

    Raises:
        ConfigError: tensorflow-serving-api is not installed.
    """
    text_format, config_pb2 = _protos()
    config = config_pb2.ModelServerConfig()
    for name, versions in models.items():
        model = config.model_config_list.config.add(
            name=name, base_path=f"/{MODELS}/{name}", model_platform="tensorflow"
        )
        model.model_version_policy.specific.versions.extend(versions.loaded)
        model.version_labels.update(versions.labels)
    return text_format.MessageToString(config)


def read_models_config(path: Path) -> dict[str, Versions]:
    """Reads what `models_config` wrote.

    Args:
        path: The file.

    Returns:
        The versions of each model, by name.

    Raises:
        CheckpointError: It is missing, is no ModelServerConfig, or not one that this package writes.
        ConfigError: tensorflow-serving-api is not installed.
    """
    text_format, config_pb2 = _protos()
    try:
        config = text_format.Parse(path.read_text(encoding="utf-8"), config_pb2.ModelServerConfig())
        for model in config.model_config_list.config:
            loaded = model.model_version_policy.specific.versions
            if STABLE not in model.version_labels or not set(model.version_labels.values()) <= set(loaded):
                raise ValueError(f"{model.name} has no stable version among those loaded")
        return {
            model.name: Versions(
                model.version_labels[STABLE],
                model.version_labels.get(CANARY),
                tuple(model.model_version_policy.specific.versions),
            )
            for model in config.model_config_list.config
        }
    except (OSError, ValueError, KeyError, text_format.ParseError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({str(error).splitlines()[0]}); give a folder made by python -m export.serving."
        ) from error


def _protos() -> tuple[ModuleType, ModuleType]:
    try:
        from google.protobuf import text_format
        from tensorflow_serving.config import model_server_config_pb2
    except ImportError as error:
        raise ConfigError(f"serving needs {error.name}; pip install 'vae-bss-tf[train,serving]' brings it.") from error
    return text_format, model_server_config_pb2


def _batching_parameters(cpus: int) -> str:
    sizes = "".join(f"allowed_batch_sizes: {size}\n" for size in BATCH_SIZES)
    return (
        f"# The largest request too: the server refuses one of more than {BATCH_SIZES[-1]} mixtures.\n"
        f"max_batch_size {{ value: {BATCH_SIZES[-1]} }}\n"
        "# How long a request waits for others, when the server is idle.\n"
        f"batch_timeout_micros {{ value: {_BATCH_TIMEOUT_MICROS} }}\n"
        "# Beyond it requests are refused as unavailable: clients wait and try again.\n"
        f"max_enqueued_batches {{ value: {_MAX_ENQUEUED_BATCHES} }}\n"
        f"num_batch_threads {{ value: {cpus} }}\n"
        "# Batches are filled up to the next of these, the sizes that the warm-up has run.\n"
        f"{sizes}"
    )


def _arguments(cpus: int) -> list[str]:
    return [
        f"--port={GRPC_PORT}",
        f"--rest_api_port={REST_PORT}",
        f"--model_config_file=/config/{MODELS_CONFIG}",
        "--model_config_file_poll_wait_seconds=10",
        # Labels of versions that are still to be loaded: all of them at the start, later a new canary's.
        "--allow_version_labels_for_unavailable_models=true",
        "--enable_batching=true",
        "--batching_parameters_file=/config/batching_parameters.txt",
        "--monitoring_config_file=/config/monitoring.config",
        f"--tensorflow_intra_op_parallelism={cpus}",
        f"--tensorflow_inter_op_parallelism={cpus}",
    ]


def _items(values: list[str], indent: int) -> str:
    return textwrap.indent("\n".join(f"- {value}" for value in values), " " * indent).lstrip()


def _compose(cpus: int) -> str:
    # The image has neither curl nor wget: bash opens the connection itself. `$$` is Compose's way to write `$`.
    names = f"sed -n 's/^ *name: \"\\(.*\\)\"/\\1/p' /config/{MODELS_CONFIG}"
    request = 'printf "GET /v1/models/$$model HTTP/1.0\\r\\n\\r\\n" >&3'
    check = (
        f"for model in $$({names}); do exec 3<>/dev/tcp/127.0.0.1/{REST_PORT} && {request} "
        "&& grep -q '\"AVAILABLE\"' <&3 || exit 1; done"
    )
    return f"""\
# On the CPU: docker compose up -d       On a GPU: docker compose up -d gpu
x-server: &server
  entrypoint: [tensorflow_model_server]
  command:
    {_items(_arguments(cpus), 4)}
  volumes:
    # Folders, not files: a file that is replaced would stay the old one inside.
    - ./:/config:ro
    - ./{MODELS}:/{MODELS}:ro
  ports:
    # Neither port asks who is calling. Open them to a network only behind something that does.
    - "127.0.0.1:{GRPC_PORT}:{GRPC_PORT}"
    - "127.0.0.1:{REST_PORT}:{REST_PORT}"
  healthcheck:
    test:
      - CMD
      - bash
      - -c
      - >-
        {check}
    interval: 10s
    timeout: 5s
    retries: 3
    start_period: 60s
  init: true
  restart: unless-stopped
  user: "65534:65534"
  read_only: true
  tmpfs: [/tmp]
  cap_drop: [ALL]
  security_opt: ["no-new-privileges:true"]

services:
  cpu:
    <<: *server
    image: {IMAGE}
    deploy:
      resources:
        limits:
          cpus: "{cpus}"
          memory: 2G
  gpu:
    <<: *server
    image: {IMAGE}-gpu
    profiles: [gpu]
    deploy:
      resources:
        limits:
          memory: 8G
        reservations:
          devices:
            - driver: nvidia
              count: 1
              capabilities: [gpu]
"""


def _config_map(texts: Mapping[str, str]) -> str:
    # A block of YAML must end with a newline for the next key to stand on a line of its own.
    lines = {name: text if text.endswith("\n") else f"{text}\n" for name, text in texts.items()}
    data = "".join(f"  {name}: |\n{textwrap.indent(lines[name], '    ')}" for name in sorted(lines))
    return f"""\
# What a running server follows, within about a minute: kubectl apply -f kubernetes-config.yaml
apiVersion: v1
kind: ConfigMap
metadata:
  name: separator-config
data:
{data}"""


def _kubernetes(name: str, cpus: int) -> str:
    probe = f"{{path: /v1/models/{name}, port: rest}}"
    return f"""\
# kubectl apply -f kubernetes-config.yaml -f kubernetes.yaml, and put what is in {MODELS}/ into the claim
# `separator-models`: docs/serving.md says how.
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: separator-models
spec:
  accessModes: [ReadWriteOnce]
  resources:
    requests:
      storage: 1Gi
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: separator
  labels: {{app: separator}}
spec:
  replicas: 1
  selector:
    matchLabels: {{app: separator}}
  template:
    metadata:
      labels: {{app: separator}}
      annotations:
        prometheus.io/scrape: "true"
        prometheus.io/port: "{REST_PORT}"
        prometheus.io/path: {METRICS_PATH}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      securityContext:
        runAsNonRoot: true
        runAsUser: 65534
        runAsGroup: 65534
        seccompProfile: {{type: RuntimeDefault}}
      containers:
        - name: tensorflow-serving
          # On a GPU: {IMAGE}-gpu, and `nvidia.com/gpu: 1` in the limits.
          image: {IMAGE}
          command: [tensorflow_model_server]
          args:
            {_items(_arguments(cpus), 12)}
          ports:
            - {{name: grpc, containerPort: {GRPC_PORT}}}
            - {{name: rest, containerPort: {REST_PORT}}}
          # The ports open when the models are loaded and warm.
          startupProbe:
            httpGet: {probe}
            periodSeconds: 2
            failureThreshold: 150
          readinessProbe:
            httpGet: {probe}
            periodSeconds: 10
            timeoutSeconds: 5
          # Not the model's state: a version that fails to load is no reason to end the one that serves.
          livenessProbe:
            tcpSocket: {{port: grpc}}
            periodSeconds: 20
            timeoutSeconds: 5
          resources:
            requests: {{cpu: "{cpus}", memory: 1Gi}}
            limits: {{cpu: "{cpus}", memory: 2Gi}}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {{drop: [ALL]}}
          volumeMounts:
            - {{name: config, mountPath: /config, readOnly: true}}
            - {{name: models, mountPath: /{MODELS}, readOnly: true}}
            - {{name: tmp, mountPath: /tmp}}
      volumes:
        - name: config
          configMap: {{name: separator-config}}
        - name: models
          persistentVolumeClaim: {{claimName: separator-models}}
        - name: tmp
          emptyDir: {{}}
---
apiVersion: v1
kind: Service
metadata:
  name: separator
  labels: {{app: separator}}
spec:
  selector: {{app: separator}}
  ports:
    - {{name: grpc, port: {GRPC_PORT}, targetPort: grpc}}
    - {{name: rest, port: {REST_PORT}, targetPort: rest}}
"""


def _readme(models: Mapping[str, Versions]) -> str:
    rows = [
        f"| `{name}` | {versions.stable} | {versions.canary or '-'} | {', '.join(map(str, versions.loaded))} |"
        for name, versions in models.items()
    ]
    name = next(iter(models))
    return f"""\
# Separators for TensorFlow Serving

Made by `python -m export.serving`, which keeps it up to date; the guide is the project's `docs/serving.md`.

| model | stable | canary | loaded |
| --- | --- | --- | --- |
{chr(10).join(rows)}

```
docker compose up -d        # on a GPU: docker compose up -d gpu
docker compose ps           # healthy when every model is loaded and warm
```

```python
from vae_bss_tf.runtime import load

model = load("grpc://127.0.0.1:{GRPC_PORT}/{name}/labels/{STABLE}")  # or http://127.0.0.1:{REST_PORT}/v1/models/{name}/labels/{STABLE}
sources = model.separate(mixtures)
```

- `{MODELS}/NAME/VERSION/`: the SavedModels, each with the requests that warm it up and its `manifest.json`.
- `{MODELS_CONFIG}`: which versions are loaded and what their labels are; the server looks every 10 seconds.
- `batching_parameters.txt`, `monitoring.config`: how requests are put together; metrics at `{METRICS_PATH}`.
- `docker-compose.yml`; `kubernetes.yaml` with `kubernetes-config.yaml`: {IMAGE}, ports {GRPC_PORT} (gRPC) and
  {REST_PORT} (REST).
"""
