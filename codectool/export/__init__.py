"""Export of models as ONNX graphs and `torch.export` programs."""
