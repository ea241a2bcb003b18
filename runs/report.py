"""Tables, figures and one HTML file from the workdir of a run, and the comparison of two runs. Flags: `--help`. The same as `sbjax report`."""

from sbjax.commands import start

if __name__ == "__main__":
    start("report")
