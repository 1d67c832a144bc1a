"""Systems to evaluate: codectool's codecs and external encoder and decoder programs."""
