"""Files of weights: reading them safely, naming them by fingerprint, remembering where they lie."""
