"""Objective quality metrics, one file each; optional packages are imported when used."""
