"""A model trained by an objective: which weights change, by which gradient, in which precision."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from training.learner import Learner
from training.recipe import plan
from training.run import Run
from training.trainer import Trainer
from vae_bss_tf import MultiSourceVAE
from vae_bss_tf.config import AudioConfig, ModelConfig, Preset
from vae_bss_tf.datasets import pipeline
from vae_bss_tf.domains import Domain, Images, Sound
from vae_bss_tf.objectives import Elbo, MaskedRemix, Objective, RemixedElbo

CONFIG = ModelConfig((8, 8), latent_dim=4, hidden_units=(24, 16), mask_channels=(3, 4))
AUDIO = AudioConfig(sample_rate=4_000.0, n_fft=16, hop_length=4, num_frames=32, num_bins=8, frame_pooling=4, power=0.5)
SOUND = CONFIG.replace(
    network="spectrogram", hidden_units=(8, 12, 10), likelihood="normal", likelihood_scale=0.1, mask_exponent=2.0
)
PARTS = ("encoder", "decoder", "mask_network")


@pytest.fixture(scope="module")
def mixtures() -> np.ndarray:
    return np.random.default_rng(1).uniform(size=(16, 8, 8)).astype(np.float32)


def built(config: ModelConfig, policy: str = "float32") -> MultiSourceVAE:
    keras.utils.set_random_seed(0)
    model = MultiSourceVAE(config, dtype=policy)
    bias = model.encoder.head.bias
    bias.assign(np.random.default_rng(5).normal(size=bias.shape))  # untrained it makes one source twice
    return model


def objective_of(name: str, model: MultiSourceVAE, domain: Domain) -> tuple[Objective, tuple[str, ...]]:
    elbo = Elbo(lambda step: tf.constant(0.1))
    return {
        "elbo": (elbo, ("encoder", "decoder")),
        "encoder alone": (elbo, ("encoder",)),
        "remixed_elbo": (RemixedElbo(elbo, domain, masked=True), ("encoder", "decoder")),
        "masked_remix": (MaskedRemix(model.copy(mask_network=False), domain), ("mask_network",)),
    }[name]


@pytest.mark.parametrize(
    ("name", "config", "policy", "xla"),
    [
        ("elbo", CONFIG, "mixed_float16", False),
        ("encoder alone", CONFIG, "float32", False),
        ("remixed_elbo", CONFIG.replace(num_sources=3), "float32", False),
        ("remixed_elbo", SOUND, "float32", True),
        ("remixed_elbo", CONFIG.replace(num_sources=1), "mixed_bfloat16", False),
        ("masked_remix", CONFIG, "mixed_bfloat16", False),
        ("masked_remix", SOUND, "float32", False),
    ],
)
def test_what_is_trained_learns_and_all_else_stays(
    mixtures: np.ndarray, name: str, config: ModelConfig, policy: str, xla: bool
) -> None:
    model = built(config, policy)
    objective, trained = objective_of(name, model, Sound(AUDIO) if config == SOUND else Images())
    learner = Learner(model, objective, trained)
    learner.compile(optimizer=keras.optimizers.Adam(1e-2), jit_compile=xla)
    learner.optimizer.build(learner.trainable_variables)  # else each step is traced twice
    trainable = [variable.trainable for variable in model.variables]
    before = {part: [weight.numpy() for weight in getattr(model, part).weights] for part in PARTS}
    epochs = 30 if name == "masked_remix" else 10  # each step exchanges other sources
    losses = learner.fit({"mixture": mixtures}, batch_size=8, epochs=epochs, verbose=0, shuffle=False).history["loss"]
    assert np.mean(losses[-epochs // 3 :]) < np.mean(losses[: epochs // 3])
    assert all(weight.dtype == "float32" for weight in model.trainable_weights)
    for part in PARTS:
        for weight, was in zip(getattr(model, part).weights, before[part], strict=True):
            learns = weight.trainable or weight.name in ("moving_mean", "moving_variance")
            assert np.array_equal(weight, was) != (part in trained and learns), weight.path
    assert [variable.trainable for variable in model.variables] == trainable


def test_a_step_descends_along_the_gradient_of_the_mean_loss(mixtures: np.ndarray) -> None:
    model = built(CONFIG)
    elbo = Elbo(lambda step: tf.constant(0.5))
    with tf.GradientTape() as tape:
        loss, _ = elbo(model.copy(), mixtures, tf.constant(0))
    learner = Learner(model, elbo, ("encoder", "decoder"))
    reference = model.copy()
    variables = [v for part in ("encoder", "decoder") for v in getattr(reference, part).trainable_variables]
    with tf.GradientTape() as tape:
        loss, values = elbo(reference, mixtures, tf.constant(0))
    gradients = tape.gradient(loss, [v.value for v in variables])
    assert all(gradient is not None for gradient in gradients)
    learner.compile(optimizer=keras.optimizers.SGD(0.01), jit_compile=False)
    found = learner.train_on_batch({"mixture": mixtures}, return_dict=True)
    assert found["loss"] == pytest.approx(float(loss), rel=1e-5)
    for name in elbo.metrics:
        assert found[name] == pytest.approx(np.mean(values[name]), rel=1e-4, abs=1e-5)
    for after, was, gradient in zip(learner.trainable_variables, variables, gradients, strict=True):
        np.testing.assert_allclose(after, was.numpy() - 0.01 * np.asarray(gradient), rtol=1e-3, atol=1e-5)


def test_validation_is_the_mean_over_the_mixtures(mixtures: np.ndarray) -> None:
    model = built(CONFIG)
    learner = Learner(model, Elbo(), ("encoder", "decoder"))
    learner.compile(jit_compile=False)
    found = learner.evaluate({"mixture": mixtures}, batch_size=4, verbose=0, return_dict=True)
    for name, value in Elbo().validate(model, mixtures).items():
        assert found[name] == pytest.approx(np.mean(value), rel=1e-5)


def test_the_teacher_of_a_round_is_the_model_as_the_round_before_left_it(
    tiny_recipe: Preset, mixtures: np.ndarray, tmp_path: Path
) -> None:
    """The first round's is the model without a mask network. It does not change as its pupil learns."""
    banks = pipeline.load_banks(tiny_recipe, None)
    trainer = Trainer(Run(tmp_path, tiny_recipe, "vae"), banks, tf.distribute.get_strategy(), quiet=True)
    model, teachers = built(tiny_recipe.model), []
    for planned in plan(tiny_recipe.recipe)[2:]:
        learner = trainer.learner(planned, model)
        teacher = learner.objective.teacher
        assert not {id(weight) for weight in teacher.weights} & {id(weight) for weight in model.weights}
        before = [weight.copy() for weight in teacher.get_weights()]
        expected = model.get_weights() if planned.round == 2 else model.copy(mask_network=False).get_weights()
        for a, b in zip(before, expected, strict=True):
            np.testing.assert_array_equal(a, b)
        learner.fit({"mixture": mixtures}, batch_size=8, epochs=2, verbose=0)
        for a, b in zip(before, teacher.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        with tf.GradientTape() as tape:
            loss, _ = learner.objective(model, tf.constant(mixtures), tf.constant(0))
        assert all(gradient is None for gradient in tape.gradient(loss, [w.value for w in teacher.trainable_weights]))
        teachers.append(teacher)
    assert [teacher.mask_network is None for teacher in teachers] == [True, False]
