"""Run batches on the machines of a Ray cluster."""
