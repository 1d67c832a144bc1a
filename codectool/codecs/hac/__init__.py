"""HAC: causal, 18 binary scalars a token; on samples (1.35 kbps) and on spectra (3.6 kbps)."""
