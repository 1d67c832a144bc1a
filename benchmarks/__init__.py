"""Benchmarks: `python -m benchmarks NAME`, each with `--help`."""

NAMES = ("codecs", "training", "engines", "precision", "runtimes", "startup", "trace")
