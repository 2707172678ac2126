"""The training of context networks, which correct the separated sources of recordings (`vae_bss_tf.audio.context`)."""
