"""Benchmarks: `python -m benchmarks NAME`, each with `--help`."""

NAMES = ("codecs", "layers", "training", "engines", "precision", "runtimes", "startup", "trace")
