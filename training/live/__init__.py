"""Training of a live separator from mixtures alone, taught by an offline one."""
