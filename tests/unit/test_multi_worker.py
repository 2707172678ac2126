"""Two replicas and several workers train as one process with the same batches does, for every objective.

TensorFlow's workers listen on every interface, whatever TF_CONFIG says: they run in a network namespace of their own.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vae_bss_tf.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parents[2]
# Two workers take 10 steps in two epochs, by SGD alone. With VAE_BSS_MULTI_WORKER=all, which takes minutes, two and
# four workers take 50 with either optimizer, and the loss of each step is compared.
ALL = os.environ.get("VAE_BSS_MULTI_WORKER") == "all"
STEPS, EPOCHS, WORKERS = (50, 50, (2, 4)) if ALL else (10, 2, (2,))
SCRIPT = """
import json, sys
from training import loop
from training.strategy import can_jit_compile, make_strategy
strategy = make_strategy(sys.argv[1])
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

steps, epochs = map(int, sys.argv[2:])
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
    adam = [(keras.optimizers.Adam, 1e-3)] if epochs > 2 else []
    for kind, learning_rate in [(keras.optimizers.SGD, rate), *adam]:
        keras.utils.set_random_seed(1)
        with strategy.scope():
            model = MultiSourceVAE(config)
            learner = Learner(model, make(model), parts)
            learner.compile(optimizer=kind(learning_rate), jit_compile=False, steps_per_execution=steps // epochs)
            learner.optimizer.build(learner.trainable_variables)
        before = np.concatenate([np.ravel(w) for w in model.get_weights()])
        losses = Losses()
        options = dict(
            epochs=epochs,
            initial_epoch=0,
            steps_per_epoch=steps // epochs,
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
replicas = strategy.num_replicas_in_sync
print(json.dumps({"replicas": replicas, "can_jit_compile": can_jit_compile(strategy), "found": found}))
"""
RUN_ALL = """
ip link set lo up
for index in $(seq 0 $(($1 - 1))); do
    task='"task": {"type": "worker", "index": '$index'}'
    TF_CONFIG='{"cluster": {"worker": '$2'}, '$task'}' "$3" -c "$4" $5 > "$6/$index.json" 2> "$6/$index.err" &
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


def trained(strategy: str) -> dict[str, Any]:
    """What one process finds."""
    words = [sys.executable, "-c", SCRIPT, strategy, str(STEPS), str(EPOCHS)]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, timeout=1_200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def one() -> dict[str, dict]:
    return trained("single")["found"]


def together(count: int, folder: Path) -> list[dict[str, dict]]:
    """What each of several workers finds."""
    addresses = json.dumps([f"127.0.0.1:{21_001 + index}" for index in range(count)])
    words = [str(count), addresses, sys.executable, SCRIPT, f"multi-worker {STEPS} {EPOCHS}", str(folder)]
    command = ["unshare", "-n", "bash", "-c", RUN_ALL, "run", *words]
    done = subprocess.run(command, cwd=REPOSITORY, check=False, timeout=1_200)
    assert done.returncode == 0, [file.read_text()[-2000:] for file in sorted(folder.glob("*.err"))]
    printed = [(folder / f"{index}.json").read_text().splitlines()[-1] for index in range(count)]
    return [json.loads(line)["found"] for line in printed]


@pytest.mark.timeout(2_400)
def test_two_replicas_of_one_process_train_as_one_does(one: dict[str, dict]) -> None:
    mirrored = trained("mirrored")
    assert mirrored["replicas"] == 2
    assert not mirrored["can_jit_compile"]  # by XLA, on a CPU
    for name, expected in one.items():
        found = mirrored["found"][name]
        if not name.endswith("Adam"):  # which hides a gradient that is too large by a factor
            assert expected["moved"] > 1e-3, name
            np.testing.assert_allclose(found["weights"], expected["weights"], atol=1e-3 if ALL else 2e-5)
            for logs, other in zip(expected["logs"], found["logs"], strict=True):
                assert other == pytest.approx(logs, rel=1e-4), name


@needs_isolation
@pytest.mark.timeout(2_400)
@pytest.mark.parametrize("count", WORKERS)
def test_several_workers_train_as_one_process_does(
    count: int, one: dict[str, dict], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    workers = together(count, tmp_path)
    assert len(one) == (6 if ALL else 3)
    for name, expected in one.items():
        assert expected["moved"] > 1e-3, name
        for worker in workers:
            found = worker[name]
            # A bias before batch normalisation has no gradient but what rounding leaves, which Adam scales up. It does
            # not change the loss; held-out mixtures are normalised by moving means, which lag behind it.
            of_adam = name.endswith("Adam")
            differences = np.subtract(expected["weights"], found["weights"])
            assert np.abs(differences).max() < (1e-2 if of_adam else 1e-5), name
            pairs = list(zip(expected["logs"], found["logs"], strict=True))
            record_property(f"{count} workers, {name}", max(abs(b["loss"] / a["loss"] - 1) for a, b in pairs))
            for epoch, (logs, other) in enumerate(pairs):
                assert logs.keys() == other.keys()
                for key, value in logs.items():
                    tolerance = 1e-2 if of_adam and key != "loss" else 1e-5
                    assert other[key] == pytest.approx(value, rel=tolerance), (name, epoch, key)
    assert all(worker == workers[0] for worker in workers)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "multi-worker needs TF_CONFIG"),
        ("{", "TF_CONFIG is {"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "TF_CONFIG"),
        ('{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}', "TF_CONFIG"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "evaluator", "index": 0}}', "TF_CONFIG"),
        ("[]", "TF_CONFIG"),
        ('{"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}', "TF_CONFIG"),
        ('{"cluster": {"worker": ["a:1", "b"]}, "task": {"type": "worker", "index": 0}}', "TF_CONFIG"),
        ('{"cluster": {"worker": ["a:1", 5]}, "task": {"type": "worker", "index": 0}}', "TF_CONFIG"),
        ('{"cluster": {"worker": ["a:1", "b:70000"]}, "task": {"type": "worker", "index": 0}}', "TF_CONFIG"),
        ('{"cluster": {"chief": ["a:1"], "worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}', "of its own"),
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
