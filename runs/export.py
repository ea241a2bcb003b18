"""A trained network as a safetensors file and a model card. Flags: `--help`. The same as `sbjax export`."""

from sbjax.runner.commands import start

if __name__ == "__main__":
    start("export")
