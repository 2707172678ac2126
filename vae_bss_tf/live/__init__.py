"""Separation of sound as it comes, block by block: a causal multi-source VAE with its state in the open."""
