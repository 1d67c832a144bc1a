"""Tokens of whole corpora: data sets in the formats that language models are trained on.

Codes as ids and back; `recover_codes` takes ids that may be incomplete or wrong::

    layout = SequenceLayout.make("flat", tokens.layout.bits_per_codebook, offsets=True)
    ids = layout.to_ids(tokens.codes)
    codes = layout.from_ids(ids)

Data sets in formats that others read, and their records::

    export_tokens("tokens/", "dataset/", ExportOptions(format="parquet"))
    for record in open_dataset("dataset/"):
        print(record.id, record.tokens.shape)

Records back to `.hcd` files: `open_importable` and `import_folder`.
"""

from codectool.corpus.dataset import TokenDataset, open_dataset
from codectool.corpus.export import (
    ExportOptions,
    ExportReport,
    export_audio,
    export_tokens,
)
from codectool.corpus.importing import (
    ImportOptions,
    ImportReport,
    import_file,
    import_folder,
    open_importable,
)
from codectool.corpus.layouts import LAYOUTS, LayoutOptions, SequenceLayout
from codectool.corpus.metadata import ExportMetadata
from codectool.corpus.recovery import Recovered, recover_codes

__all__ = [
    "LAYOUTS",
    "ExportMetadata",
    "ExportOptions",
    "ExportReport",
    "ImportOptions",
    "ImportReport",
    "LayoutOptions",
    "Recovered",
    "SequenceLayout",
    "TokenDataset",
    "export_audio",
    "export_tokens",
    "import_file",
    "import_folder",
    "open_dataset",
    "open_importable",
    "recover_codes",
]
