"""What is compared: codecs of ours, and programs of others."""
