"""The multi-source variational auto-encoder of Neri, Badeau and Depalle (EUSIPCO 2021) as a Keras model."""

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

import vae_bss_tf.learning_rates  # noqa: F401  (registers what a compiled model's file may hold)
from vae_bss_tf.checks import check_mixtures
from vae_bss_tf.config import AudioConfig, ModelConfig, TrainConfig, get_preset
from vae_bss_tf.errors import ConfigError
from vae_bss_tf.masking import ratio_mask
from vae_bss_tf.nn.corrector import LatentCorrector
from vae_bss_tf.nn.images import (
    PACKAGE,
    GaussianSampler,
    MultiSourceEncoder,
    SourceDecoder,
    SourceMask,
    replica_noise,
)
from vae_bss_tf.nn.mask_network import MaskNetwork
from vae_bss_tf.nn.spectrograms import SpectrogramDecoder, SpectrogramEncoder
from vae_bss_tf.objectives import distributions, remixing
from vae_bss_tf.refinement import search

REFINEMENT_LEARNING_RATE = 0.05

_LEAST_ESTIMATE = 1e-30
_REMIXED = "remixed_sources"  # beside "mixture" in the inputs of a step with remixing
_REMIX_SEED = 1 << 20  # added to the seed, for draws of their own
_PHASE_SEED = (1 << 21, 0)


def _networks(config: ModelConfig, policy: keras.DTypePolicy) -> tuple[keras.Layer, keras.Layer]:
    of_encoder: dict[str, Any] = {"dtype": policy, "name": "encoder"}
    of_decoder: dict[str, Any] = {"dtype": policy, "name": "decoder"}
    latents, units = (config.num_sources, config.latent_dim), config.hidden_units
    if config.network == "conv":
        encoder = SpectrogramEncoder(*latents, units, **of_encoder)
        return encoder, SpectrogramDecoder(config.input_shape, units[:-3:-1], **of_decoder)
    encoder = MultiSourceEncoder(*latents, config.encoder_units or units, config.convolutions, **of_encoder)
    return encoder, SourceDecoder(config.input_shape, units[::-1], **of_decoder)


def _corrector(config: ModelConfig, policy: keras.DTypePolicy) -> LatentCorrector | None:
    if not config.corrector_units:
        return None
    return LatentCorrector(
        config.latent_dim,
        config.corrector_convolutions,
        config.corrector_units,
        over_frames=config.network == "conv",
        dtype=policy,
        name="corrector",
    )


@keras.saving.register_keras_serializable(PACKAGE)
class MultiSourceVAE(keras.Model):
    """One encoder emits K latents, one shared decoder turns each into a source; their sum is the mixture.

    Where the configuration has a corrector, it compares these sources with the mixture and corrects the latents, and
    the decoder turns them into sources once more, as often as configured. All of it is one pass: the gradients that the
    corrector sees are computed forward, by products with the decoder's own weights.

    Trained on mixtures alone: `fit` takes a data set of `{"mixture": ...}` and nothing else. The loss is the
    negative ELBO per mixture with the KL term weighted by beta,
    `-E_q[ln p(x|Z)] + beta * KL(q(Z|x) || p(Z))`, in nats (paper, equation 5; one sample of Z).

    Beside the loss it reports, as means over mixtures in nats, `log_likelihood`, `kl`, and `elbo`, the ELBO with
    the KL weighted by `elbo_kl_weight`, which does not change as beta does.

    While the property `remixing` is True, a training step also separates as many mixtures made of its own separated
    sources (see the module `remixing`) and adds `remix_weight` times their loss, with the likelihood of each source in
    place of that of their sum. It is False at first: remixing sharpens sources that have parted, it does not part them.
    While `remix_masked` is True too, the likelihood of the sources under the masked estimates is added, and a corrector
    learns: it sharpens sources that are good. `training.callbacks.Remixing` sets both during `fit`.

    Where the configuration has a mask network, the masks are shared by the estimates that it rescales, and it alone is
    trained, with both properties True: each step separates its batch as the model without it does, and separates the
    remixed sources; what it learns from is the likelihood of those masked, of sound their signal-to-distortion ratio in
    dB, and the metrics are theirs too.

    Call arguments:
        inputs: float32 `[batch, *input_shape]` in [0, 1], or a dictionary with it under "mixture".
        training: True samples the latents; False takes the posterior mean.

    Returns:
        A dictionary of float32 tensors:
            sources: `[batch, num_sources, *input_shape]`, masked: they sum to the mixture (VAEM).
            estimates: `[batch, num_sources, *input_shape]` in (0, 1), the decoder's outputs (VAE).
            latent_mean: `[batch, num_sources, latent_dim]`.
            latent_log_variance: `[batch, num_sources, latent_dim]`.

    Args:
        config: The network and its distributions.
        kl_weight: Beta at the start; >= 0. It is the variable `kl_weight`, which a schedule may assign.
        elbo_kl_weight: Weight of the KL in the reported `elbo`; >= 0.
        remix_weight: Weight of the remixed mixtures' loss; >= 0. Meant for K of 4 or less: all orders are tried.
        remix_silence: As `TrainConfig` has it.
        audio: What a mixture of sound is the spectrogram of, which remixing needs to know; None for images.
        seed: Seed of the latents' noise, and of what is exchanged, in training.
    """

    def __init__(
        self,
        config: ModelConfig,
        kl_weight: float = 1.0,
        elbo_kl_weight: float = 1.0,
        remix_weight: float = 0.0,
        remix_silence: float = 0.0,
        audio: AudioConfig | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.initial_kl_weight = kl_weight
        self.elbo_kl_weight = elbo_kl_weight
        self.remix_weight = remix_weight
        self.remix_silence = remix_silence
        self.audio = audio
        self._remixing = False
        self._remix_masked = False
        self.seed = seed
        self.encoder, self.decoder = _networks(config, self.dtype_policy)
        self.corrector = _corrector(config, self.dtype_policy)
        self.mask_network = None
        if config.mask_channels:
            self.mask_network = MaskNetwork(config.mask_channels, dtype=self.dtype_policy, name="mask_network")
        self.sampler = GaussianSampler(seed, dtype="float32", name="sampler")
        self.mask = SourceMask(config.mask_exponent, dtype="float32", name="mask")
        self.metric_trackers = {name: keras.metrics.Mean(name=name) for name in ("log_likelihood", "kl", "elbo")}
        self.build((None, *config.input_shape))

    @classmethod
    def from_preset(cls, name: str, *, seed: int = 0, **model_settings: Any) -> "MultiSourceVAE":
        """Builds an untrained model from a preset.

        Args:
            name: Name of a preset, such as "mnist".
            seed: Seed of the latents' noise in training.
            **model_settings: Fields of `ModelConfig` to change, such as `num_sources=3`.

        Returns:
            The model, built and ready to compile.

        Raises:
            ConfigError: The preset or a field is unknown, or a value is out of its range.
        """
        preset = get_preset(name)
        config = ModelConfig.from_dict({**preset.model.to_dict(), **model_settings})
        return cls.for_training(config, preset.train.replace(seed=seed), preset.audio)

    @classmethod
    def for_training(
        cls, config: ModelConfig, train: TrainConfig, audio: AudioConfig | None = None, **kwargs: Any
    ) -> "MultiSourceVAE":
        """Builds an untrained model with the weights of the loss that a training begins with.

        Args:
            config: The network and its distributions.
            train: Settings of the training.
            audio: The spectrogram's settings; None for images.
            **kwargs: As `keras.Model` takes them.

        Returns:
            The model, built and ready to compile.
        """
        return cls(
            config,
            kl_weight=train.kl_weight,
            elbo_kl_weight=train.final_kl_weight,
            remix_weight=train.remix_weight,
            remix_silence=train.remix_silence,
            audio=audio,
            seed=train.seed,
            **kwargs,
        )

    @property
    def num_parameters(self) -> int:
        """Number of values that training finds, those too that one of a mask network leaves as they were found."""
        found = list(self.trainable_variables)
        if self.mask_network is not None:
            found += MultiSourceVAE(self.config.replace(mask_channels=())).trainable_variables
        return sum(variable.shape.num_elements() for variable in found)

    @property
    def remixing(self) -> bool:
        """Whether training steps remix; a change compiles the step again."""
        return self._remixing

    @remixing.setter
    def remixing(self, value: bool) -> None:
        self._remixing = value
        self._compile_again()

    @property
    def remix_masked(self) -> bool:
        """Whether remixed sources are judged masked too, while `remixing`; a change compiles the step again."""
        return self._remix_masked

    @remix_masked.setter
    def remix_masked(self, value: bool) -> None:
        self._remix_masked = value
        self._compile_again()

    def _compile_again(self) -> None:
        if self.train_function is not None:
            self.make_train_function(force=True)

    def build(self, input_shape: Any = None) -> None:
        latent_shape = (None, self.config.num_sources, self.config.latent_dim)
        self.encoder.build((None, *self.config.input_shape))
        self.sampler.build(latent_shape, latent_shape)
        self.decoder.build(latent_shape)
        if self.corrector is not None:
            self.corrector.build((None, *self.config.input_shape))
        if self.mask_network is not None:
            self.mask_network.build((None, *self.config.input_shape))
            for part in (self.encoder, self.decoder, self.corrector):
                if part is not None:
                    part.trainable = False
        self.kl_weight = self.add_weight(
            name="kl_weight",
            shape=(),
            initializer=keras.initializers.Constant(self.initial_kl_weight),
            trainable=False,
            autocast=False,
            dtype="float32",
        )

    def encode(self, mixture: keras.KerasTensor, training: bool = False) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Posterior of the latents given a mixture: the encoder's, corrected where the network has a corrector.

        Args:
            mixture: float32 `[batch, *input_shape]` in [0, 1].
            training: Whether batch normalisation uses the batch's own moments. True leaves the corrector out unless
                `remix_masked`.

        Returns:
            Mean and log variance, each float32 `[batch, num_sources, latent_dim]`.
        """
        mean, log_variance = self.encoder(mixture, training=training)
        # In training it is of no use, and still corrects nothing, before remixed sources are judged masked.
        if training and not self.remix_masked:
            return mean, log_variance
        config = self.config
        iterations = config.corrector_training_iterations if training else config.corrector_iterations
        return self._correct(mixture, mean, log_variance, iterations, training)

    def _correct(
        self,
        mixture: keras.KerasTensor,
        mean: keras.KerasTensor,
        log_variance: keras.KerasTensor,
        iterations: int,
        training: bool = False,
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        if self.corrector is None:
            return mean, log_variance
        mixture = keras.ops.cast(mixture, "float32")
        for _ in range(iterations):
            estimates, pull_back = self.decoder.linearize(keras.ops.stop_gradient(mean))
            errors = keras.ops.sum(estimates, axis=1, keepdims=True) - keras.ops.expand_dims(mixture, 1)
            gradients = pull_back(keras.ops.repeat(errors, self.config.num_sources, axis=1))
            seen = [keras.ops.stop_gradient(part) for part in (estimates, gradients)]
            mean, log_variance = self.corrector(mixture, *seen, mean, log_variance, training=training)
        return mean, log_variance

    def decode(self, latents: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        """Source estimates from latents, each source on its own.

        Args:
            latents: float32 `[batch, num_sources, latent_dim]`; any number of sources.
            training: Whether batch normalisation uses the batch's own moments.

        Returns:
            float32 `[batch, num_sources, *input_shape]` in (0, 1).
        """
        return self.decoder(latents, training=training)

    def call(self, inputs: Any, training: bool = False) -> dict[str, keras.KerasTensor]:
        mixture = inputs["mixture"] if isinstance(inputs, dict) else inputs
        if training and self.mask_network is not None:
            mean, log_variance = self._brief_posterior(mixture)
            estimates = self.decode(mean)
            self.sampler.advance()
        else:
            mean, log_variance = self.encode(mixture, training=training)
            latents = self.sampler(mean, log_variance, training=training and self.config.variational)
            estimates = self.decode(latents, training=training)
            if training and not self.config.variational:
                self.sampler.advance()
        return {
            "sources": self._masked(estimates, mixture),
            "estimates": estimates,
            "latent_mean": mean,
            "latent_log_variance": log_variance,
        }

    def _masked(self, estimates: keras.KerasTensor, mixture: keras.KerasTensor) -> keras.KerasTensor:
        if self.mask_network is not None:
            estimates = self.mask_network(mixture, estimates)
        return self.mask(estimates, mixture)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> tf.Tensor:
        """The negative ELBO of a batch of mixtures, and the loss of remixed ones; called by `fit` and `evaluate`.

        Args:
            x: The mixtures, as `call` takes them. Where remixed ones stand among them, every second, or all where there
                is a mask network, the known sources of those are under "remixed_sources": as tensor for images, as
                `remixing.SoundMixtures` for sound.
            y: Unused: there is no target.
            y_pred: What `call` returned for `x`.
            sample_weight: Unused.
            training: Unused.

        Returns:
            float32 scalar, nats, the mean over the batch of all replicas; remixed sound with a mask network: dB.
        """
        mixture = tf.cast(x["mixture"] if isinstance(x, dict) else x, tf.float32)
        kl = self._kl(y_pred["latent_mean"], y_pred["latent_log_variance"])
        estimates = y_pred["estimates"]
        has_remixed = isinstance(x, dict) and _REMIXED in x
        if has_remixed:
            remixed_mixture, remixed, remixed_kl = mixture, estimates, kl
            if self.mask_network is None:
                remixed_mixture, remixed, remixed_kl = mixture[1::2], estimates[1::2], kl[1::2]
                mixture, estimates, kl = mixture[::2], estimates[::2], kl[::2]
            known = x[_REMIXED]
            sources = known if self.audio is None else known.sources
            fits = remixing.log_likelihood(self.config.likelihood, self.config.likelihood_scale, remixed, sources)
            if self.remix_masked:
                if self.mask_network is None:
                    shared = remixed + remixing.MASK_FLOOR
                else:
                    rescaled = self.mask_network(remixed_mixture, remixed)
                    # Masks do not change with the scale, and powers of small values have no gradient.
                    largest = tf.stop_gradient(tf.reduce_max(rescaled, axis=1, keepdims=True))
                    shared = tf.pow(rescaled / tf.maximum(largest, _LEAST_ESTIMATE), self.config.mask_exponent)
                if self.audio is None:
                    fits += remixing.masked_log_likelihood(shared, remixed_mixture, sources)
                elif self.mask_network is None:
                    fits += remixing.masked_sound_log_likelihood(shared, known, self.audio)
                else:
                    fits = remixing.masked_sound_sdr(shared, known, self.audio)
            fit = remixing.best_order(fits)
        likelihood = distributions.mixture_likelihood(
            self.config.likelihood, tf.reduce_sum(estimates, axis=1), self.config.likelihood_scale
        )
        log_likelihood = likelihood.log_prob(mixture)
        self.metric_trackers["log_likelihood"].update_state(log_likelihood)
        self.metric_trackers["kl"].update_state(kl)
        self.metric_trackers["elbo"].update_state(log_likelihood - self.elbo_kl_weight * kl)
        if has_remixed and self.mask_network is not None:  # the rest is of networks that are not trained any more
            loss = -self.remix_weight * tf.reduce_mean(fit)
        else:
            loss = tf.reduce_mean(self.kl_weight * kl - log_likelihood)
            if has_remixed:
                loss += self.remix_weight * tf.reduce_mean(self.kl_weight * remixed_kl - fit)
        # Gradients are summed over the replicas, so each contributes its share of the mean.
        return loss / tf.distribute.get_strategy().num_replicas_in_sync

    def _kl(self, mean: tf.Tensor, log_variance: tf.Tensor) -> tf.Tensor:
        if not self.config.variational:
            return tf.zeros(tf.shape(mean)[:1])
        return distributions.kl_divergence(
            distributions.latent_posterior(mean, log_variance),
            distributions.latent_prior(self.config.prior, self.config.num_sources, self.config.latent_dim),
        )

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One step of gradient descent on a batch of mixtures; called by `fit`.

        Args:
            data: The mixtures, as `call` takes them. With `remixing`, an even number of them on each replica.

        Returns:
            The metrics by name.

        Raises:
            ConfigError: The number is odd and `remixing` is True; or there is a mask network, which learns while
                `remixing` and `remix_masked` are and `remix_weight` is not 0.
        """
        if self.mask_network is not None and not (self.remixing and self.remix_masked and self.remix_weight):
            raise ConfigError(
                "a mask network learns while remixing and remix_masked are True and remix_weight is above 0; set them."
            )
        if self.remixing:
            mixtures, _, _ = keras.utils.unpack_x_y_sample_weight(data)
            data = keras.utils.pack_x_y_sample_weight(self._with_remixed(mixtures))
        return super().train_step(data)

    def _with_remixed(self, inputs: Any) -> dict[str, Any]:
        mixture = tf.cast(inputs["mixture"] if isinstance(inputs, dict) else inputs, tf.float32)
        if (mixture.shape[0] or 0) % 2:
            raise ConfigError(f"a batch of {mixture.shape[0]} mixtures cannot be paired for remixing; use an even one.")
        sources = self._taught(mixture)
        seed = tf.stack([self.seed + _REMIX_SEED, self.sampler.step.value])
        batch, num_sources = tf.shape(mixture)[0], self.config.num_sources
        if self.audio is not None:
            sources = remixing.source_magnitudes(sources, mixture, self.audio)
        if self.remix_silence:
            sources = remixing.silence_faint(sources, self.remix_silence)
        sources = remixing.exchange(sources, replica_noise(batch, (num_sources,), seed))
        if self.audio is None:
            known, remixed = sources, remixing.mix_images(sources)
        else:
            noise = replica_noise(batch, (num_sources - 1, self.config.input_shape[1], 2), seed + _PHASE_SEED)
            known = remixing.mix_sound(sources, noise, self.audio)
            remixed = known.mixture
        if self.mask_network is not None:
            return {"mixture": remixed, _REMIXED: known}
        # Each mixture is followed by a remixed one, so that replicas that share a batch draw the noise that one would.
        both = tf.reshape(tf.stack([mixture, remixed], axis=1), [-1, *self.config.input_shape])
        return {"mixture": both, _REMIXED: known}

    def _taught(self, mixture: tf.Tensor) -> tf.Tensor:
        """The sources that a step remixes: by the posterior mean, corrected as often as in training.

        They are shared by values, whatever `mask_exponent` is: what is taught by powers comes to share nothing.
        """
        mean, _ = self._brief_posterior(mixture) if self.remix_masked else self.encoder(mixture, training=False)
        return ratio_mask(self.decode(mean), mixture)

    def _brief_posterior(self, mixture: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """As `encode` without training, but for as many corrections as in training."""
        mean, log_variance = self.encoder(mixture, training=False)
        return self._correct(mixture, mean, log_variance, self.config.corrector_training_iterations)

    @tf.function(jit_compile=True)
    def refine(self, mixture: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
        """Separates mixtures after improving their latents by gradient descent, from the posterior mean.

        The objective is `-ln p(x|Z) - w ln p(Z)` with w the KL weight of the reported `elbo`: what the ELBO taught the
        encoder to do for all mixtures at once is done for each alone.

        Args:
            mixture: float32 `[batch, *input_shape]` in [0, 1].
            steps: float32 scalar, the number of Adam steps; each costs about three passes of the decoder.

        Returns:
            Sources, float32 `[batch, num_sources, *input_shape]`, masked.
        """
        config = self.config
        prior = distributions.latent_prior(config.prior, config.num_sources, config.latent_dim)

        def objective(latents: tf.Tensor) -> tf.Tensor:
            estimate = tf.reduce_sum(self.decode(latents), axis=1)
            likelihood = distributions.mixture_likelihood(config.likelihood, estimate, config.likelihood_scale)
            return -likelihood.log_prob(mixture) - self.elbo_kl_weight * prior.log_prob(latents)

        latents = search(objective, self.encode(mixture)[0], steps, REFINEMENT_LEARNING_RATE)
        return self._masked(self.decode(latents), mixture)

    def separate(self, mixtures: npt.ArrayLike, batch_size: int = 256, refine: int = 0) -> npt.NDArray[np.float32]:
        """Separates mixtures: posterior mean, decoder, mask over all sources (VAEM).

        Args:
            mixtures: `[*input_shape]` or `[num_mixtures, *input_shape]`, finite, in [0, 1].
            batch_size: Mixtures a call; at least 1.
            refine: Gradient steps that improve the latents of each mixture first (see `refine`); each costs about three
                passes of the decoder.

        Returns:
            float32 `[num_sources, *input_shape]` or `[num_mixtures, num_sources, *input_shape]`; the sources
            of a mixture sum to it.

        Raises:
            ConfigError: `refine` is negative.
            DataError: The shape is another, a value is not finite, or a value is outside [0, 1].
        """
        if refine < 0:
            raise ConfigError(f"refine is {refine}; it must be a number of steps, 0 or more.")
        mixtures = check_mixtures(mixtures, self.config.input_shape)
        batch = mixtures.reshape(-1, *self.config.input_shape)
        if refine:
            parts = [batch[first : first + batch_size] for first in range(0, len(batch), batch_size)]
            sources = np.concatenate([self.refine(part, tf.constant(float(refine))).numpy() for part in parts])
        else:
            sources = self.predict({"mixture": batch}, batch_size=batch_size, verbose=0)["sources"]
        return sources if mixtures.ndim > len(self.config.input_shape) else sources[0]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "config": self.config.to_dict(),
            "kl_weight": self.initial_kl_weight,
            "elbo_kl_weight": self.elbo_kl_weight,
            "remix_weight": self.remix_weight,
            "remix_silence": self.remix_silence,
            "audio": None if self.audio is None else self.audio.to_dict(),
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "MultiSourceVAE":
        audio = config.get("audio")  # missing in models of before it was there
        return cls(
            **{
                **config,
                "config": ModelConfig.from_dict(config["config"]),
                "audio": None if audio is None else AudioConfig.from_dict(audio),
            }
        )
