"""Benchmarks: `python -m benchmarks codecs|training|engines|trace`, each with `--help`."""
