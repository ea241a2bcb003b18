"""Train an experiment in cells on many processes. `python runs/sweep.py plan|run|status|merge`; as `sbjax sweep`."""

from sbjax.runner.commands import start

if __name__ == "__main__":
    start("sweep")
