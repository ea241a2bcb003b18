"""Many cells on many processes: planned once, run by any engine, merged into the runs that one process would leave."""
