"""A step of two replicas is the step of one, for every objective."""

import json
import subprocess
import sys

import pytest

# Logical devices must be made before TensorFlow starts, so this runs in its own process. SGD, since Adam hides a
# gradient that is too large by a factor.
SCRIPT = """
import json
import keras, numpy as np, tensorflow as tf
from training.learner import Learner
from training.strategy import make_strategy, can_jit_compile
from vae_bss_tf import MultiSourceVAE, ModelConfig
from vae_bss_tf.datasets import load_bank
from vae_bss_tf.datasets.image_mixtures import training_mixtures
from vae_bss_tf.domains import Images
from vae_bss_tf.objectives import Elbo, MaskedRemix, Noise, RemixedElbo

config = ModelConfig(
    input_shape=(8, 8), num_sources=2, latent_dim=4, hidden_units=(16, 12), convolutions=(4,), encoder_units=(12,),
    mask_channels=(3, 4),
)
mirrored, single = make_strategy("mirrored"), make_strategy("single")
elbo = Elbo(lambda step: tf.constant(0.5), noise=Noise(2))
separation = ("encoder", "decoder")
objectives = {
    "elbo": (lambda model: elbo, separation, 1e-3),
    "remixed_elbo": (lambda model: RemixedElbo(elbo, Images(), 0.5, 0.05, masked=True), separation, 1e-3),
    "masked_remix": (lambda model: MaskedRemix(model.copy(), Images(), 0.05, Noise(2)), ("mask_network",), 1.0),
}

def trained(strategy, name):
    make, parts, rate = objectives[name]
    keras.utils.set_random_seed(1)
    with strategy.scope():
        model = MultiSourceVAE(config)
        learner = Learner(model, make(model), parts)
        learner.compile(optimizer=keras.optimizers.SGD(rate), jit_compile=False, steps_per_execution=3)
        learner.optimizer.build(learner.trainable_variables)
    data = training_mixtures(load_bank("digits", "train"), num_mixed=(2,), batch_size=32, seed=0)
    start = [w.copy() for part in parts for w in getattr(model, part).get_weights()]
    history = learner.fit(data, epochs=2, steps_per_epoch=3, verbose=0, shuffle=False).history
    moved = [np.abs(a - w).max() for a, w in zip(start, [w for p in parts for w in getattr(model, p).get_weights()])]
    return np.concatenate([np.ravel(w) for w in model.get_weights()]), max(moved), history

found = {}
for name in objectives:
    (one, moved, history), (two, _, other) = trained(single, name), trained(mirrored, name)
    found[name] = {
        "moved": float(moved), "difference": float(np.abs(one - two).max()),
        "histories": [[history[key], other[key]] for key in history],
    }
print(json.dumps({"replicas": mirrored.num_replicas_in_sync, "can_jit": can_jit_compile(mirrored), "found": found}))
"""


@pytest.fixture(scope="module")
def outcome() -> dict:
    command = [sys.executable, "-c", SCRIPT]
    process = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert process.returncode == 0, process.stderr[-2000:]
    return json.loads(process.stdout.splitlines()[-1])


def test_two_replicas_cannot_be_compiled_by_xla_on_a_cpu(outcome: dict) -> None:
    assert outcome["replicas"] == 2
    assert not outcome["can_jit"]


@pytest.mark.parametrize(("objective", "moved"), [("elbo", 5e-3), ("remixed_elbo", 5e-3), ("masked_remix", 1e-3)])
def test_a_step_of_two_replicas_is_the_step_of_one(outcome: dict, objective: str, moved: float) -> None:
    found = outcome["found"][objective]
    assert found["moved"] > moved
    assert found["difference"] < 2e-5
    for one, two in found["histories"]:
        for a, b in zip(one, two, strict=True):
            assert abs(a - b) < 1e-4 * abs(a)
