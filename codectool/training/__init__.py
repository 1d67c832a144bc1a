"""Training: data, losses, discriminators, and one plain loop."""
