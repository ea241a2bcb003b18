"""What `sbjax COMMAND` and the scripts in `runs/` do: a module a command, with its flags."""

import functools
import importlib
import sys

COMMANDS = {
    "train": "train all arms of an experiment and write its report",
    "measure": "rank designs by the symmetry they break, or measure parameters from elsewhere",
    "sweep": "the same in many processes or on a cluster: plan, run, status, merge",
    "report": "draw the report of a run again, or compare two runs",
    "claims": "published claims beside our numbers; --check runs one again",
    "export": "a trained network as safetensors with a model card",
}


def start(command: str) -> None:
    """Run a command with the flags of `sys.argv`; its module's docstring is what `--help` shows."""
    from absl import app, flags

    from sbjax.runner import cli, compile_cache

    compile_cache.enable()
    module = importlib.import_module(f"sbjax.runner.commands.{command}")
    if actions := getattr(module, "ACTIONS", ()):
        action = _action(command, actions)
        flags.DEFINE_string(f"{command}_action", action, "", module_name="sbjax")
        module.define_flags(action)
    else:
        module.define_flags()
    sys.modules["__main__"].__doc__ = module.__doc__
    # absl shows the flags of the script that was started; these are defined elsewhere.
    for owner in (module.__name__, cli.__name__):
        for flag in flags.FLAGS.get_flags_for_module(owner):
            flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    app.run(module.cli, flags_parser=functools.partial(cli.parse, check=getattr(module, "check_flags", None)))


def _action(command: str, actions: tuple[str, ...]) -> str:
    """The word after a command that has several, taken out of `sys.argv`."""
    given = sys.argv[1:2]
    if given and given[0] in actions:
        return sys.argv.pop(1)
    if {*sys.argv[1:]} & {"--help", "-h", "-help"}:
        return actions[0]
    from sbjax.common.names import near

    said = f"{given[0]!r} is no action of it{near(given[0], actions)}" if given else "say what to do"
    sys.exit(f"error: {command}: {said}; {', '.join(actions)}, such as `sbjax {command} {actions[0]} --flags`")


def main() -> None:
    """The console script `sbjax`: `sbjax COMMAND --flags`, `sbjax --help`, `sbjax --version`."""
    given = sys.argv[1:2]
    if given == ["--version"]:
        from sbjax import __version__

        sys.stdout.write(f"sbjax {__version__}\n")
    elif given and given[0] in COMMANDS:
        sys.argv = [f"sbjax {given[0]}", *sys.argv[2:]]
        start(given[0])
    else:
        lines = "".join(f"  {name:8} {what}\n" for name, what in COMMANDS.items())
        text = f"usage: sbjax COMMAND [--flags]\n\n{lines}\n`sbjax COMMAND --help` lists the flags of a command.\n"
        if not given or given[0] in ("--help", "-h", "help"):
            sys.stdout.write(text)
        else:
            from sbjax.common.names import near

            sys.exit(f"error: {given[0]!r} is no command{near(given[0], COMMANDS)}\n\n{text}")
