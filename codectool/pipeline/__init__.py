"""Process whole folders: resumable, in batches, with reading and writing beside the model.

Steps of a file: `jobs` maps input to output, `plan` assigns it to a batch, `steps` takes the batch
through an operation (`operations`), and `journal` records the outcome. `executor` runs many batches
in threads, `ray` on many machines. `run` is the entry point.
"""
