"""The codec models, on tensors alone: waveform to codes and back. One folder per codec."""
