"""Ray engine: files of a folder spread over machines."""
