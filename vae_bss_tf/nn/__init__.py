"""The networks: blocks, encoders and decoders, the mask network, sampling."""
