"""Statistics of tokens: codebook usage and entropy."""
