"""The codec models: waveform tensor to code tensor and back; no files, no printing."""
