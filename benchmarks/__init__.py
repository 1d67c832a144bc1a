"""Benchmarks: `python -m benchmarks codecs|training|engines|runtimes|startup|trace`, each with `--help`."""
