"""Commands of pages and claims, read as `runs/train.py` reads them."""

import pathlib
import shlex
import sys

from absl import flags as absl_flags

ROOT = pathlib.Path(__file__).parents[1]


def config_words(line):
    """The words of a command that make its configuration, () if its config is none of `configs/`."""
    words = tuple(word for word in shlex.split(line, comments=True) if word.startswith("--config"))
    return words if words and words[0].startswith("--config=configs/") else ()


def plan_of(line, monkeypatch):
    """The plan of a command, of a suite that of its first run."""
    from ml_collections import config_flags

    from sbjax.runner import suite

    words = [word.replace("--config=", f"--config={ROOT}/", 1) for word in config_words(line)]
    flags = absl_flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, flag_values=flags)
    # ml_collections looks for overrides there.
    monkeypatch.setattr(sys, "argv", ["x", *words])
    flags(sys.argv)
    return suite.first_plan(flags.config)
