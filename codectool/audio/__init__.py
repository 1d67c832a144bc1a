"""Audio files, pipes and samples; imports no torch."""
