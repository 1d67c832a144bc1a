"""Tokens of whole corpora: data sets in the formats that language models are trained on."""
