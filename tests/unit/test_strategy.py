import json
import subprocess
import sys

import pytest

# Logical devices must be made before TensorFlow starts, so this runs in its own process. SGD, since Adam hides a
# gradient that is too large by a factor.
SCRIPT = """
import json, sys
import keras, numpy as np, tensorflow as tf
from training.callbacks import Remixing
from training.strategy import make_strategy, can_jit_compile
from vae_bss_tf import MultiSourceVAE, ModelConfig
from vae_bss_tf.datasets import load_bank
from vae_bss_tf.datasets.image_mixtures import training_mixtures

config = ModelConfig(
    input_shape=(8, 8), num_sources=2, latent_dim=4, hidden_units=(16, 12), convolutions=(4,), encoder_units=(12,),
    corrector_convolutions=(3,), corrector_units=(6,), mask_channels=(3, 4) if sys.argv[1] == "masks" else (),
)
remixing, rate = (Remixing(0, 0), 1.0) if config.mask_channels else (Remixing(1, 1), 1e-3)
mirrored = make_strategy("mirrored")

def trained(strategy):
    keras.utils.set_random_seed(1)
    with strategy.scope():
        model = MultiSourceVAE(config, kl_weight=0.5, remix_weight=0.5, seed=2)
        model.compile(optimizer=keras.optimizers.SGD(rate), jit_compile=False, steps_per_execution=3)
    data = training_mixtures(load_bank("digits", "train"), num_mixed=(2,), batch_size=32, seed=0)
    history = model.fit(
        data, epochs=2, steps_per_epoch=3, verbose=0, shuffle=False, callbacks=[remixing]
    ).history
    return model, history

def trainable(model):
    return np.concatenate([np.ravel(weight) for weight in model.trainable_weights])

keras.utils.set_random_seed(1)
start = trainable(MultiSourceVAE(config))
one, one_history = trained(make_strategy("single"))
two, two_history = trained(mirrored)
flat = [np.concatenate([np.ravel(w) for w in m.get_weights()]) for m in (one, two)]
print(json.dumps({
    "replicas": mirrored.num_replicas_in_sync,
    "can_jit": can_jit_compile(mirrored),
    "difference": float(np.abs(flat[0] - flat[1]).max()),
    "moved": float(np.abs(trainable(one) - start).max()),
    "losses": [one_history["loss"], two_history["loss"]],
    "kl": [one_history["kl"], two_history["kl"]],
}))
"""


@pytest.mark.parametrize(("learns", "moved"), [("all", 5e-3), ("masks", 1e-3)])
def test_a_step_of_two_replicas_is_the_step_of_one(learns, moved):
    command = [sys.executable, "-c", SCRIPT, learns]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert process.returncode == 0, process.stderr[-2000:]
    found = json.loads(process.stdout.splitlines()[-1])
    assert found["replicas"] == 2
    assert not found["can_jit"]
    assert found["moved"] > moved
    assert found["difference"] < 2e-5
    for name in ("losses", "kl"):
        for one, two in zip(*found[name], strict=True):
            assert abs(one - two) < 1e-4 * abs(one)
