"""What a training step minimises: objectives and the distributions they are made of."""
