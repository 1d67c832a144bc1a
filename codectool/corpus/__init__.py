"""Tokens of whole corpora: data sets in the formats that language models are trained on.

from codectool.corpus import SequenceLayout

layout = SequenceLayout.make("flat", tokens.layout.bits_per_codebook, offsets=True)
ids = layout.to_ids(tokens.codes)
codes = layout.from_ids(ids)

Data sets in formats that others read, and their records:

export_tokens("tokens/", "dataset/", ExportOptions(format="parquet"))
for record in open_dataset("dataset/"):
    print(record.id, record.tokens.shape)
"""

from codectool.corpus.dataset import TokenDataset, open_dataset
from codectool.corpus.export import (
    ExportOptions,
    ExportReport,
    LayoutOptions,
    export_audio,
    export_tokens,
)
from codectool.corpus.layouts import LAYOUTS, SequenceLayout
from codectool.corpus.metadata import ExportMetadata
from codectool.corpus.recovery import Recovered, recover_codes

__all__ = [
    "LAYOUTS",
    "ExportMetadata",
    "ExportOptions",
    "ExportReport",
    "LayoutOptions",
    "Recovered",
    "SequenceLayout",
    "TokenDataset",
    "export_audio",
    "export_tokens",
    "open_dataset",
    "recover_codes",
]
