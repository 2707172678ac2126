"""What deploy/training holds: manifests by their schemas, clusters and commands as the package reads them."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from training.options import parser, resolve

DEPLOY = Path(__file__).resolve().parents[2] / "deploy" / "training"
VERSIONS = ("1.27", kubernetes_validate.latest_version())


@pytest.fixture(scope="module")
def manifests() -> dict[str, dict]:
    documents = yaml.safe_load_all((DEPLOY / "tfjob.yaml").read_text())
    return {f"{document['kind']} {document['metadata']['name']}": document for document in documents}


@pytest.fixture(scope="module")
def job(manifests: dict[str, dict]) -> dict:
    return manifests["TFJob separator-training"]


@pytest.mark.parametrize("version", VERSIONS)
def test_claims_policy_and_pods_fit_the_schemas_of_kubernetes(manifests: dict, job: dict, version: str) -> None:
    template = job["spec"]["tfReplicaSpecs"]["Worker"]["template"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "worker", **template["metadata"]},
        "spec": template["spec"],
    }
    for document in (*(found for name, found in manifests.items() if not name.startswith("TFJob")), pod):
        kubernetes_validate.validate(document, version, strict=True)


def test_the_job_is_as_the_training_operator_wants_it(manifests: dict, job: dict) -> None:
    worker = job["spec"]["tfReplicaSpecs"]["Worker"]
    template = worker["template"]["spec"]
    container = template["containers"][0]
    assert job["apiVersion"] == "kubeflow.org/v1"
    assert container["name"] == "tensorflow"
    assert {"name": "tfjob-port", "containerPort": 2222} in container["ports"]
    assert worker["restartPolicy"] == "OnFailure"
    claims = {volume["persistentVolumeClaim"]["claimName"] for volume in template["volumes"]}
    assert {f"PersistentVolumeClaim {claim}" for claim in claims} <= set(manifests)
    policy = manifests["NetworkPolicy separator-training"]["spec"]
    assert policy["podSelector"]["matchLabels"] == worker["template"]["metadata"]["labels"]


def test_the_commands_are_of_this_package(job: dict) -> None:
    container = job["spec"]["tfReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]
    words = shlex.split(container["args"][0].partition("exec python -m training.fit ")[2].replace('"$@"', "--resume"))
    services = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text())["services"]
    for given in (words, *(service["command"] for service in services.values())):
        options = parser().parse_args(given)
        assert options.strategy == "multi-worker"
        resolve(options)


def test_the_workers_of_the_try_out_are_one_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    from training.cluster import Place, place

    compose = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text())
    services, places = compose["services"], []
    for name, service in services.items():
        monkeypatch.setenv("TF_CONFIG", service["environment"]["TF_CONFIG"])
        described = json.loads(service["environment"]["TF_CONFIG"])
        places.append(place())
        assert described["cluster"]["worker"][places[-1].index] == f"{name}:2222"
        assert "ports" not in service
    assert places == [Place(0, 2), Place(1, 2)]
    assert compose["networks"]["workers"] == {"internal": True}


def test_compose_reads_its_file() -> None:
    if not shutil.which("docker-compose"):
        pytest.skip("needs docker-compose")
    subprocess.run(["docker-compose", "-f", DEPLOY / "docker-compose.yml", "config", "-q"], check=True, timeout=60)


def test_the_image_copies_what_is_there() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    lines = text.splitlines()
    assert set(re.findall(r"--build-arg (\w+)=", text)) == set(re.findall(r"^ARG (\w+)=", text, re.M))
    copied = [name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]]
    assert copied
    for name in copied:
        assert (DEPLOY.parents[1] / name).exists(), name
