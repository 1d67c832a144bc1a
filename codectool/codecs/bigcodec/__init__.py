"""BigCodec: 16 kHz speech at 1.04 kbps with one codebook of 8192 entries (arXiv 2409.05377)."""
