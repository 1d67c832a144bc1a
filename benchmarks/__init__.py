"""Benchmarks: `python -m benchmarks NAME`, each with `--help`."""

NAMES = ("codecs", "training", "engines", "runtimes", "startup", "trace")
