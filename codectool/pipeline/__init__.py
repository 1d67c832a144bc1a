"""Whole folders through a codec: restartable, in batches, reading and writing beside the model.

The way of a file: `jobs` names it, `plan` puts it into a batch, `steps` takes the batch through the
model, `journal` remembers the outcome. `engine` does many batches at once, `run` is the way in.
"""
