"""Samples from files and to files, and between sampling rates; no torch."""
