"""Fixtures of release 0.1: saved runs of every kind, and the losses of every objective, step by step.

It runs with the code of release 0.1 (commit 9011970) alone: `python make.py FOLDER` in a checkout of it.
"""
import json
import os
import shutil
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
from pathlib import Path
import numpy as np
import keras
from vae_bss_tf.config import AudioConfig, ModelConfig
from vae_bss_tf.model import MultiSourceVAE

out = Path(sys.argv[1]); shutil.rmtree(out, ignore_errors=True); (out / "objectives").mkdir(parents=True)
IMG = ModelConfig(input_shape=(8, 8), latent_dim=4, hidden_units=(16, 12), convolutions=(4,), encoder_units=(12,))
AUD = AudioConfig(sample_rate=4000, n_fft=64, hop_length=16, num_frames=32, num_bins=32, frame_pooling=4, power=0.7)
SND = ModelConfig(input_shape=(8, 32), latent_dim=4, network="conv", hidden_units=(12, 12, 12, 16, 12), likelihood="normal", likelihood_scale=0.1)
MASK = dict(mask_channels=(4, 8))
cases = {
  "elbo-image": (IMG, None, 0, 0, 0.0),
  "elbo-laplace-prior": (IMG.replace(prior="laplace", likelihood="bernoulli", convolutions=(), encoder_units=()), None, 0, 0, 0.0),
  "elbo-autoencoder": (IMG.replace(variational=False), None, 0, 0, 0.0),
  "elbo-sound": (SND, AUD, 0, 0, 0.0),
  "remixed-image": (IMG, None, 1, 0, 0.0),
  "remixed-image-k3-silence": (IMG.replace(num_sources=3), None, 1, 0, 0.1),
  "remixed-sound": (SND, AUD, 1, 0, 0.0),
  "remixed-masked-image": (IMG, None, 1, 1, 0.0),
  "remixed-masked-sound": (SND, AUD, 1, 1, 0.0),
  "mask-image": (IMG.replace(**MASK), None, 1, 1, 0.0),
  "mask-image-k3-silence": (IMG.replace(num_sources=3, **MASK), None, 1, 1, 0.1),
  "mask-sound": (SND.replace(mask_exponent=2.0, **MASK), AUD, 1, 1, 0.0),
}
rng = np.random.default_rng(7)
batches = {}
for kind, shape in (("image", (8, 8)), ("sound", (8, 32))):
    b = np.zeros((6, 8, *shape), np.float32)
    for i in range(6):
        for j in range(8):
            for _ in range(2):
                y, x = rng.integers(0, shape[0] - 3), rng.integers(0, shape[1] - 3)
                b[i, j, y:y + 3, x:x + 3] += 0.5 * rng.uniform(0.5, 1)
    batches[kind] = np.clip(b + 0.02 * rng.random(b.shape), 0, 1).astype(np.float32)
np.savez_compressed(out / "objectives" / "batches.npz", **batches)
losses = {}
for name, (config, audio, remixing, masked, silence) in cases.items():
    keras.utils.set_random_seed(3)
    model = MultiSourceVAE(config, kl_weight=0.3, elbo_kl_weight=0.2, remix_weight=1.0 if remixing else 0.0, remix_silence=silence, audio=audio, seed=5)
    if model.mask_network is not None:  # a head of zeros would hide the network
        head = model.mask_network.head
        head.kernel.assign(0.3 * np.random.default_rng(1).standard_normal(head.kernel.shape))
    model.save(out / "objectives" / f"{name}.keras")
    model.compile(optimizer=keras.optimizers.Adam(2e-3), jit_compile=False)
    model.remixing, model.remix_masked = bool(remixing), bool(masked)
    data = batches["sound" if audio else "image"]
    rows = []
    for batch in data:
        logs = model.train_on_batch({"mixture": batch}, return_dict=True)
        rows.append({k: float(v) for k, v in logs.items()})
        for m in model.metric_trackers.values(): m.reset_state()
        model._loss_tracker.reset_state()
    # losses are reset after each step, so that each row is of one step alone
    sources = model.separate(data[0])
    losses[name] = {"kl_weight": 0.3, "elbo_kl_weight": 0.2, "learning_rate": 2e-3, "seed": 5, "silence": silence, "audio": audio.to_dict() if audio else None, "steps": rows, "after": sources[:2].astype(float).round(7).tolist()}
    print(name, [round(r["loss"], 5) for r in rows], flush=True)
(out / "objectives" / "losses.json").write_text(json.dumps(losses) + "\n")
# runs
from training.fit import main


def fit(name, *args):
    rc = main([*args, "--output", str(out / "runs" / name), "--quiet"]); assert rc == 0, (name, rc)
tiny = ["--epochs", "4", "--set", "train.mixtures_per_epoch=256", "--set", "train.steps_per_execution=2", "--set", "train.jit_compile=false", "--set", "train.validation_mixtures=16"]
img = [*tiny, "--set", "model.hidden_units=[24,16]", "--set", "model.latent_dim=4"]
remix = ["--set", "train.remix_weight=1", "--set", "train.remix_start=0.25", "--set", "train.remix_mask_start=0.5"]
mask = ["--set", "train.remix_weight=1", "--set", "train.remix_start=0", "--set", "train.remix_mask_start=0", "--set", "model.mask_channels=[4,8]"]
corr = ["--set", "model.corrector_units=[12]", "--set", "model.corrector_convolutions=[4]"]
fit("vae", *img); fit("ae", *img, "--system", "ae"); fit("glo", *img, "--system", "glo"); fit("mixit", *img, "--system", "mixit")
fit("vae-k3", *img, "--num-sources", "3", "--num-mixed", "1,2,3")
fit("remixed", *img, *remix)
fit("corrected", *img, *remix, *corr)
fit("masked", *img, *mask, "--init", str(out / "runs" / "remixed"))
snd = ["--dataset", "tones", *tiny, "--set", "audio.num_frames=32", "--set", "audio.num_bins=64", "--set", "audio.n_fft=256", "--set", "audio.hop_length=64", "--set", "model.input_shape=[8,64]", "--set", "model.hidden_units=[16,16,16,24,16]", "--set", "model.latent_dim=4"]
fit("sound", *snd); fit("sound-mixit", *snd, "--system", "mixit")
fit("sound-masked", *snd, *mask, "--set", "model.mask_exponent=2.0", "--init", str(out / "runs" / "sound"))
from training.run import Run
from vae_bss_tf.datasets import preset_data

for path in sorted((out / "runs").iterdir()):
    run = Run.load(path); model = run.model()
    truth = preset_data.evaluation_data(run.preset, preset_data.load_banks(run.preset, None, ("test",))["test"], num_mixtures=3)
    if run.system in ("glo", "mixit"): sources = model.separate(truth.mixtures, run.preset.model.num_sources)
    else: sources = model.separate(truth.mixtures)
    np.savez_compressed(path / "expected.npz", mixtures=truth.mixtures, sources=sources)
    for gone in ("backup", "tensorboard"): shutil.rmtree(path / gone, ignore_errors=True)
    for gone in ("history.png", "separation.png"): (path / gone).unlink()
