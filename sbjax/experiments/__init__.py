"""Which experiments there are: a folder each, found by `sbjax.experiments.registry`."""
