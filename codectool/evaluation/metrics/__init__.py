"""Objective quality metrics, one file each."""
