"""Evaluation of coded speech: metrics, systems, tables, a listening page, token statistics."""
