import json
import subprocess
import sys

# Logical devices must be made before TensorFlow starts, so this runs in its own process. SGD, since Adam hides a
# gradient that is too large by a factor.
SCRIPT = """
import json, sys
import keras, numpy as np, tensorflow as tf
from training.callbacks import Remixing
from training.strategy import make_strategy, can_jit_compile
from vae_bss_tf import MultiSourceVAE, ModelConfig
from vae_bss_tf.datasets import load_bank
from vae_bss_tf.datasets.mixtures import training_mixtures

config = ModelConfig(
    input_shape=(8, 8), num_sources=2, latent_dim=4, hidden_units=(16, 12), convolutions=(4,), encoder_units=(12,),
    corrector_convolutions=(3,), corrector_units=(6,),
)
mirrored = make_strategy("mirrored")

def trained(strategy):
    keras.utils.set_random_seed(1)
    with strategy.scope():
        model = MultiSourceVAE(config, kl_weight=0.5, remix_weight=0.5, seed=2)
        model.compile(optimizer=keras.optimizers.SGD(1e-3), jit_compile=False, steps_per_execution=3)
    data = training_mixtures(load_bank("digits", "train"), num_mixed=(2,), batch_size=32, seed=0)
    history = model.fit(
        data, epochs=2, steps_per_epoch=3, verbose=0, shuffle=False, callbacks=[Remixing(1, 1)]
    ).history
    return model, history

start = np.concatenate([w.ravel() for w in (keras.utils.set_random_seed(1), MultiSourceVAE(config))[1].get_weights()])
one, one_history = trained(make_strategy("single"))
two, two_history = trained(mirrored)
flat = [np.concatenate([np.ravel(w) for w in m.get_weights()]) for m in (one, two)]
print(json.dumps({
    "replicas": mirrored.num_replicas_in_sync,
    "can_jit": can_jit_compile(mirrored),
    "difference": float(np.abs(flat[0] - flat[1]).max()),
    "moved": float(np.abs(flat[0] - start).max()),
    "losses": [one_history["loss"], two_history["loss"]],
    "kl": [one_history["kl"], two_history["kl"]],
}))
"""


def test_a_step_of_two_replicas_is_the_step_of_one():
    process = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300, check=False)
    assert process.returncode == 0, process.stderr[-2000:]
    found = json.loads(process.stdout.splitlines()[-1])
    assert found["replicas"] == 2
    assert not found["can_jit"]
    assert found["moved"] > 0.05
    assert found["difference"] < 2e-5
    for name in ("losses", "kl"):
        for one, two in zip(*found[name], strict=True):
            assert abs(one - two) < 1e-4 * abs(one)
