"""Checkpoints: safe reading, fingerprints, the model registry and downloads."""
