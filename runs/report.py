"""Tables, figures and one HTML file of a run, or of two compared. Flags: `--help`. The same as `sbjax report`."""

from sbjax.runner.commands import start

if __name__ == "__main__":
    start("report")
