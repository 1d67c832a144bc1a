"""Tokens of whole corpora: data sets in the formats that language models are trained on.

from codectool.corpus import SequenceLayout

layout = SequenceLayout.make("flat", tokens.layout.bits_per_codebook, offsets=True)
ids = layout.to_ids(tokens.codes)
codes = layout.from_ids(ids)
"""

from codectool.corpus.layouts import LAYOUTS, SequenceLayout
from codectool.corpus.metadata import ExportMetadata
from codectool.corpus.recovery import Recovered, recover_codes

__all__ = ["LAYOUTS", "ExportMetadata", "Recovered", "SequenceLayout", "recover_codes"]
