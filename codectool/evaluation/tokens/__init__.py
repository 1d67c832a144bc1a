"""Codebook usage: statistics of token files and their figure."""
