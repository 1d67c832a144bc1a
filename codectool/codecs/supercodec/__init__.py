"""SuperCodec: 16 kHz speech at 1 kbps with two codebooks of 1024 entries (arXiv 2407.20530)."""
