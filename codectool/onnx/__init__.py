"""ONNX graphs of the models, without PyTorch."""
