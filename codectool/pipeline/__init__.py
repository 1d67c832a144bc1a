"""Whole folders through a codec: restartable, in batches, reading and writing beside the model.

The way of a file: `jobs` names it, `plan` puts it into a batch, `steps` takes the batch through the
model, `journal` remembers the outcome. An `engine` does many batches at once: `local_engine` in
threads, `ray_engine` on many machines. `run` is the way in.
"""
