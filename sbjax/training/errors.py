"""The error of checkpoints, apart, so that the command line knows it before JAX is loaded."""


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read, or does not belong to this run."""
