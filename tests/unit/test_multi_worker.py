"""Two workers train as one process with the same batches does, for every objective.

TensorFlow's workers listen on every interface, whatever TF_CONFIG says: they run in a network namespace of their own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vae_bss_tf.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parents[2]
STEPS = int(os.environ.get("VAE_BSS_MULTI_WORKER_STEPS", "10"))
SCRIPT = """
import json, os, sys
from training import loop
from training.strategy import make_strategy
strategy = make_strategy("multi-worker" if "TF_CONFIG" in os.environ else "single")
import keras
from training.learner import Learner
from training.cluster import spans_hosts
from vae_bss_tf import MultiSourceVAE, ModelConfig
from vae_bss_tf.datasets import load_bank
from vae_bss_tf.datasets.image_mixtures import evaluation_mixtures, training_mixtures
from vae_bss_tf.domains import Images
from vae_bss_tf.objectives import Elbo, MaskedRemix, Noise, RemixedElbo
import numpy as np
import tensorflow as tf

steps = int(sys.argv[1])
config = ModelConfig(
    input_shape=(8, 8), num_sources=2, latent_dim=4, hidden_units=(16, 12), convolutions=(4,), encoder_units=(12,),
    mask_channels=(3, 4),
)
elbo = Elbo(lambda step: tf.constant(0.5), noise=Noise(2))
separation = ("encoder", "decoder")
objectives = {
    "elbo": (lambda model: elbo, separation, 1e-3),
    "remixed_elbo": (lambda model: RemixedElbo(elbo, Images(), 0.5, 0.05, masked=True), separation, 1e-3),
    "masked_remix": (lambda model: MaskedRemix(model.copy(), Images(), 0.05, Noise(2)), ("mask_network",), 1e-1),
}
bank = load_bank("digits", "train")
held_out = evaluation_mixtures(bank, num_mixed=(2,), num_mixtures=64).mixtures

class Losses(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.logs = []

    def on_epoch_end(self, epoch, logs=None):
        self.logs.append(dict(logs))

found = {}
for name, (make, parts, rate) in objectives.items():
    for kind, learning_rate in ((keras.optimizers.SGD, rate), (keras.optimizers.Adam, 1e-3)):
        keras.utils.set_random_seed(1)
        with strategy.scope():
            model = MultiSourceVAE(config)
            learner = Learner(model, make(model), parts)
            learner.compile(optimizer=kind(learning_rate), jit_compile=False, steps_per_execution=steps // 2)
            learner.optimizer.build(learner.trainable_variables)
        before = np.concatenate([np.ravel(w) for w in model.get_weights()])
        losses = Losses()
        options = dict(
            epochs=2,
            initial_epoch=0,
            steps_per_epoch=steps // 2,
            validation_data=tf.data.Dataset.from_tensor_slices({"mixture": held_out}).batch(32, drop_remainder=True),
            callbacks=[losses],
        )
        data = training_mixtures(bank, num_mixed=(2,), batch_size=32, seed=0)
        if spans_hosts(strategy):
            loop.fit(learner, data, **options)
        else:
            learner.fit(data, verbose=0, shuffle=False, **options)
        after = np.concatenate([np.ravel(w) for w in model.get_weights()])
        found[f"{name} {kind.__name__}"] = {
            "logs": losses.logs, "weights": after.tolist(), "moved": float(np.abs(after - before).max())
        }
print(json.dumps(found))
"""
RUN_ALL = """
ip link set lo up
for index in $(seq 0 $(($1 - 1))); do
    task='"task": {"type": "worker", "index": '$index'}'
    TF_CONFIG='{"cluster": {"worker": '$2'}, '$task'}' "$3" -c "$4" "$5" > "$6/$index.json" 2> "$6/$index.err" &
    pids="$pids $!"
done
for pid in $pids; do wait $pid || exit 1; done
"""


def can_isolate() -> bool:
    return (
        subprocess.run(["unshare", "-n", "ip", "link", "set", "lo", "up"], capture_output=True, check=False).returncode
        == 0
    )


needs_isolation = pytest.mark.skipif(
    sys.platform != "linux" or not can_isolate(), reason="a network namespace cannot be made here"
)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What one process and each of two workers found."""
    folder = tmp_path_factory.mktemp("workers")
    addresses = json.dumps([f"127.0.0.1:{port}" for port in (21_001, 21_002)])
    command = [
        "unshare",
        "-n",
        "bash",
        "-c",
        RUN_ALL,
        "run",
        "2",
        addresses,
        sys.executable,
        SCRIPT,
        str(STEPS),
        folder,
    ]
    one = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(STEPS)], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    two = subprocess.run([*map(str, command)], cwd=REPOSITORY, check=False, timeout=580)
    printed, errors = one.communicate(timeout=580)
    assert one.returncode == 0, errors[-2000:]
    assert two.returncode == 0, [file.read_text()[-2000:] for file in sorted(folder.glob("*.err"))]
    files = [folder / f"{index}.json" for index in range(2)]
    return [json.loads(text.splitlines()[-1]) for text in (printed, *(file.read_text() for file in files))]


@needs_isolation
@pytest.mark.timeout(600)
def test_two_workers_train_as_one_process_does(outcome: list[dict]) -> None:
    one, *workers = outcome
    assert len(one) == 6
    for name, expected in one.items():
        assert expected["moved"] > 1e-3, name
        for worker in workers:
            found = worker[name]
            # A bias before batch normalisation has no gradient but what rounding leaves, which Adam scales up. It does
            # not change the loss; held-out mixtures are normalised by moving means, which lag behind it.
            of_adam = name.endswith("Adam")
            differences = np.subtract(expected["weights"], found["weights"])
            assert np.abs(differences).max() < (1e-2 if of_adam else 1e-5), name
            for epoch, (logs, other) in enumerate(zip(expected["logs"], found["logs"], strict=True)):
                assert logs.keys() == other.keys()
                for key, value in logs.items():
                    tolerance = 1e-2 if of_adam and key != "loss" else 1e-5
                    assert other[key] == pytest.approx(value, rel=tolerance), (name, epoch, key)
    assert workers[0] == workers[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "multi-worker needs TF_CONFIG"),
        ("{", "TF_CONFIG is {"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "TF_CONFIG"),
        ('{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}', "TF_CONFIG"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "evaluator", "index": 0}}', "TF_CONFIG"),
        ("[]", "TF_CONFIG"),
    ],
)
def test_a_wrong_cluster_is_refused(text: str | None, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.cluster import place

    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ConfigError, match=message):
        place()


def test_the_chief_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    from training.cluster import Place, place

    cluster = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
    for kind, index, expected in (("chief", 0, 0), ("worker", 0, 1), ("worker", 1, 2)):
        task = {"type": kind, "index": index}
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task, "environment": "cloud"}))
        assert place() == Place(expected, 3)
        assert place().is_chief is (expected == 0)
