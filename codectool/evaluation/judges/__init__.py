"""Measures of quality, one file for each kind."""
