"""Benchmarks: `python -m benchmarks codecs|training|engines|runtimes|trace`, each with `--help`."""
