"""Networks that tell speech from its reconstruction, one file for each family."""
