"""Objective quality metrics; optional packages are imported when used."""
