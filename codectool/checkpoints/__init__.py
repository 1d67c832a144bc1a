"""Checkpoints: safe reading, fingerprints, bundled weights and the checkpoint registry."""
