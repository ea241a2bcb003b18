"""How experiments are run: one run, suites, ranking of designs, taking a run home, command line."""
