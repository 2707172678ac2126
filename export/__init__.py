"""From a trained run to SavedModel, TFLite and ONNX files, each proven equal to the model."""
