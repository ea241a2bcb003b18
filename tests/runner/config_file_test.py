"""The flag --config: errors of the file name file and line, errors of flags the whole flag and the likely field."""

import contextlib
import re
import shutil
import time
import types

import pytest
from ml_collections import ConfigDict

from sbjax.config import base_config
from sbjax.frame.errors import ConfigError
from sbjax.runner import cli
from sbjax.runner import config_file as lib

FILE = """
from sbjax import config as config_lib

def get_config(argument=None):
    config = config_lib.base_config()
    config.train_steps = 4
    config.arms = {"raw": {}, "expanded": {"expansion": {"kind": "image", "factor": 2, "fill": "0.5"}}}
    return config
"""

NO_SECTION = (("monitor", 7), ("task", "digits"), ("arms", []), ("suite", 3))

BROKEN = [
    ("def get_config(:", "line 1: SyntaxError: invalid syntax"),
    ("def get_config():\n    return 1\n\t return 2", "line 3: (TabError|IndentationError)"),
    ("import no_such_module_here", "line 1: ModuleNotFoundError: No module named 'no_such_module_here'"),
    ("x = y", "line 1: NameError: name 'y' is not defined"),
    ("x = 1", "has no function get_config"),
    ("def get_config():\n    return {}['a']", "line 2: KeyError: 'a'"),
    ("def get_config():\n    return [].nothing", "line 2: AttributeError: 'list' object has no attribute 'nothing'"),
    ("def get_config():\n    open('/no/such/file')", "line 2: FileNotFoundError"),
    ("def get_config():\n    raise SystemExit(3)", "line 2: SystemExit: 3"),
    ("def get_config():\n    1 / 0", "line 2: ZeroDivisionError"),
    ("def get_config():\n    return get_config()", "line 2: RecursionError"),
    ("class Own(BaseException): pass\nraise Own('why')", "line 2: Own: why"),
    ("def get_config():\n    pass", "returned None and no config; end it with `return config`"),
    ("def get_config():\n    return 3", "returned 3 and no config"),
    ("get_config = 3", "has no function get_config"),
    (FILE.replace("return config", "config.replicas = '3'\n    return config"), "line 8: TypeError: .*replicas"),
    (FILE.replace("base_config()", "base_config('imags')"), "task.kind='imags' is unknown, did you mean 'images'"),
    (b"\x00\xff", "SyntaxError|ValueError"),
    (b"x = 1\x00", r"mine\.py: (SyntaxError|ValueError): source code (string )?cannot contain null bytes"),
    *(
        (
            FILE.replace("return config", f"config.{name} = {value!r}\n    return config"),
            f"^{name}={re.escape(repr(value))} must be a section",
        )
        for name, value in NO_SECTION
    ),
    (
        FILE.replace("return config", "config.second_phase = {}\n    return config_lib.shrink(config)"),
        "^second_phase has no field 'steps'",
    ),
]


@pytest.mark.parametrize(("content", "words"), BROKEN)
def test_what_a_config_file_raises_is_told_with_its_line(tmp_path, content, words):
    path = tmp_path / "mine.py"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(lib.ConfigFileError, match=words) as caught:
        lib.load(str(path), [])
    assert "Traceback" not in str(caught.value)


def test_a_config_that_only_lists_something_ends_well(tmp_path):
    (tmp_path / "mine.py").write_text("def get_config():\n    raise SystemExit(0)")
    with pytest.raises(SystemExit) as caught:
        lib.load(str(tmp_path / "mine.py"), [])
    assert caught.value.code == 0


FLAGS = [
    ("--config.seeds=3", "--config.seeds: the config has no field 'seeds', did you mean 'replicas'"),
    ("--config.batch_size=3", "did you mean 'task.batch_size'"),
    ("--config.lr=3", "did you mean 'optimizer.learning_rate'"),
    ("--config.gpu=0", "did you mean 'placement.devices'"),
    ("--config.dtype=bfloat16", "did you mean 'precision.matmul'"),
    ("--config.epochs=3", "did you mean 'train_epochs'"),
    ("--config.replcas=3", "did you mean 'replicas'"),
    ("--config.task.lr=3", "--config.task.lr: its section 'task' has no field 'lr', did you mean 'optimizer.learning"),
    ("--config.model.width=3", r"section 'model' has no field 'width'.*into the file: config.model = {'name': "
     r"'mlp', 'width': ..}, and is a flag from then on"),
    ("--config.arms={}", "--config.arms is a section and no field: give its fields one by one, such as --config."),
    ("--config.task=5", r"--config.task is a section .*such as --config.task.[a-z_]+=\.\., or write it in .*mine.py"),
    ("--config.suite=x", "--config.suite is a section and no field: give its fields one by one, or write it in"),
    ("--config.", "--config.: the config has no field ''"),
    ("--config.seed.x=3", "--config.seed.x: seed=0 is no section and has no fields"),
    ("--config.arms.raw.optimizer.learning_rate=0.1", r"arm 'raw' of .* has no optimizer\. A flag sets fields that the "
     r"arm has in the file: write it there, config.arms.raw.optimizer = {..}, or set optimizer.learning_rate for"),
    ("--config.arms.raw.optimiser.learning_rate=1", "has no optimiser, did you mean 'optimizer'"),
    ("--config.arms.raw.modle.name=mlp", "has no modle, did you mean 'model'"),
    ("--config.arms.expanded.expansion.fil=0", "has no expansion.fil"),
    ("--config.arms.new.task.flip=true", "has no arm 'new'; its arms: expanded, raw"),
    ("--config.task.flip=yes", "--config.task.flip=yes: give true or false"),
    ("--config.task.flip=", "--config.task.flip=: give true or false"),
    ("--config.task.flip=None", "give true or false"),
    ("--config.activation=relu", "no field 'activation'; 'activation' is an option of some networks and goes into"),
    ("--config.hidden=64", r"'widths' is an option of some networks .*: config.model = {'name': .., 'widths': ..}"),
    ("--config.hidden_dim=64", "'widths' is an option of some networks"),
    ("--config.drop_rate=0.1", "'dropout' is an option of some networks"),
    ("--config.task.dropout=0.1", "section 'task' has no field 'dropout'; 'dropout' is an option of some networks"),
    ("--config.out=10", "has no field 'out'; there is no such field: how many outputs a network has follows from the"),
    ("--config.num_classes=10", "how many outputs a network has follows"),
    ("--config.patience=10", "there is no such field: arms are compared after as many steps each"),
    ("--config.output_dir=a", "where files go is the flag --workdir"),
    ("--config.resume_from_checkpoint=a", "the same command with the same --workdir goes on"),
    ("--config.max_epochs=3", "did you mean 'train_epochs'"),
    ("--config.loss_fn=mse", "the loss follows from task.kind"),
    ("--config.logger=wandb", "numbers go to metrics.jsonl"),
    ("--config.accelerator=gpu", "placement.devices says which"),
    ("--config.kernel_initializer=he", "each network has the start of its own kind"),
    ("--config.criterion=mse", "the loss follows from task.kind"),
    ("--config.per_device_train_batch_size=3", "did you mean 'task.batch_size'"),
    ("--config.num_train_epochs=3", "did you mean 'train_epochs'"),
    ("--config.validation_split=0.1", "did you mean 'task.eval_share'"),
    ("--config.gradient_clip_val=1", "did you mean 'optimizer.clip_norm'"),
    ("--config.val_check_interval=1", "did you mean 'reports'"),
    ("--config.accumulate_grad_batches=2", "there is no such field: .*task.batch_size"),
    ("--config.num_workers=2", "there is no such field"),
    ("--noconfig.task.flp", "--noconfig.task.flp: its section 'task' has no field 'flp', did you mean 'flip'"),
]  # fmt: skip


@pytest.mark.parametrize(("flag", "words"), FLAGS)
def test_a_flag_of_a_field_that_is_not_there_names_the_likely_one(tmp_path, flag, words):
    (tmp_path / "mine.py").write_text(FILE)
    with pytest.raises(lib.ConfigFileError, match=words):
        lib.load(str(tmp_path / "mine.py"), [flag])


@pytest.mark.parametrize(
    ("flags", "changes", "refused"),
    [
        ({"second_phase.name": "lbfgs"}, {}, True),
        ({"second_phase.memory_size": 10}, {}, True),
        ({"second_phase.steps": 0}, {}, False),
        ({"second_phase.name": "lbfgs"}, {"second_phase": {"steps": 3}}, False),
        ({"second_phase.name": "lbfgs"}, {"arms": {"raw": {"second_phase": {"steps": 3}}}}, False),
        ({"second_phase.name": "lbfgs"}, {"suite": {"a": {"second_phase": {"steps": 3}}}}, False),
        ({"arms.raw.second_phase.name": "lbfgs"}, {}, True),
        ({"arms.raw.second_phase.first_bias_scale": 0.0}, {}, False),
        ({"optimizer.name": "sgd"}, {}, False),
    ],
)
def test_a_flag_of_a_second_phase_that_is_not_there(flags, changes, refused):
    config = base_config()
    config.update(changes)
    told = pytest.raises(ConfigError, match=r"has no effect with second_phase\.steps=0")
    with told if refused else contextlib.nullcontext():
        lib.check_second_phase(flags, config)


@pytest.mark.parametrize(("given", "words"), [(None, "is missing"), ("None", "=None is no name"), ("-", "no folder")])
def test_a_folder_that_is_none(given, words, monkeypatch):
    monkeypatch.setattr(cli.flags, "FLAGS", {"workdir": types.SimpleNamespace(value=given)})
    with pytest.raises(ConfigError, match=f"--workdir.*{words}"):
        cli.require("workdir", "the folder of the run")


def test_a_file_is_found_where_a_shell_would_find_it(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(FILE)
    monkeypatch.setenv("HOME", str(tmp_path))
    flags = ["--config.task.flip=True", "--config.arms.expanded.expansion.factor=3", "--config.seed", "4"]
    assert isinstance(lib.load("~/mine.py", flags), ConfigDict)
    with pytest.raises(lib.ConfigFileError, match="there is no such file"):
        lib.load("~/other.py", [])
    monkeypatch.delenv("NOT_SET_HERE", raising=False)
    with pytest.raises(lib.ConfigFileError, match=r"^--config: the path .* holds \$NOT_SET_HERE, which is not set"):
        lib.load("$NOT_SET_HERE/mine.py", [])


def test_flags_are_told_before_anything_heavy_is_imported():
    """In a process of its own; its processor time, since a busy machine is not slow code."""
    import subprocess
    import sys

    script = (
        "import sys, time; sys.argv = ['runs/train.py', '--wrkdir=x', '--config=configs/quickstart.py']\n"
        "import runpy\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as error: print(error)\n"
        "print('jax' in sys.modules, time.process_time())"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    *said, last = done.stdout.splitlines()
    assert "Unknown command line flag 'wrkdir'. Did you mean: workdir" in "".join(said), done.stderr
    loaded, seconds = last.split()
    assert loaded == "False"
    assert float(seconds) < 1
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("words", ["report", "export --workdir=x", "sweep status", "train --config=quickstart"])
def test_a_flag_that_is_missing_is_told_before_anything_heavy_is_imported(words):
    import subprocess
    import sys

    script = (
        f"import sys; sys.argv = ['sbjax', *{words.split()!r}]\n"
        "from sbjax.runner.commands import main\n"
        "try:\n    main()\nexcept SystemExit as error: print(error)\n"
        "print(sorted({'jax', 'scipy', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    *said, last = done.stdout.splitlines()
    assert "is missing" in "".join(said), done.stderr
    assert last == "[]"


@pytest.mark.parametrize("words", ["report --workdir=x", "measure --config=quickstart --workdir=x"])
def test_a_limit_in_which_jax_cannot_start_is_told(words):
    """In a process of its own, that may use little: one sentence, before anything heavy is imported."""
    import subprocess
    import sys

    command = ["sh", "-c", 'ulimit -v 1000000; exec "$@"', "sh", sys.executable, "-m", "sbjax", *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    *_, said = done.stderr.splitlines()
    assert said.startswith("error: this process may use 1.0 GB of addresses (ulimit -v), and JAX reserves")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "memory ran out .MemoryError.. What was saved is untouched. Lower replicas"),
        (
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nBT"),
            "RESOURCE_EXHAUSTED.*placement.replicas",
        ),
        (RuntimeError("something else"), None),
    ],
)
def test_memory_that_runs_out_is_told_with_what_to_lower(error, words):
    from sbjax.runner.cli import _about_memory

    said = _about_memory(error)
    assert said is None if words is None else re.search(words, said)


def test_a_folder_that_was_being_copied_when_the_disk_was_full_is_one_sentence():
    """`shutil` has a list with an entry a file, which was shown as such."""
    each = [("a/x", "b/x", "[Errno 28] No space left on device: 'a/x' -> 'b/x'"), ("a/y", "b/y", "the same")]
    assert cli._about_files(shutil.Error(each)) == f"{each[0][2]}, and 1 more files"
    assert cli._about_files(shutil.Error(each[:1])) == each[0][2]
    assert cli._about_files(shutil.Error("b is there")) == "b is there"
    assert cli._about_files(OSError(28, "No space left", "x.json")) == "[Errno 28] No space left: 'x.json'"


def test_a_flag_that_names_another_model_leaves_its_options_alone(tmp_path):
    """Options of the file were meant for its own model; one with a flag of its own stays."""
    file = tmp_path / "c.py"
    file.write_text(
        "from sbjax import config\n\n\ndef get_config(argument=None):\n    c = config.base_config()\n"
        "    c.model = {'name': 'cnn', 'norm': 'batch', 'channels': (4,)}\n    return c\n"
    )
    for flags, left in (
        (["--config.model.name=resnet20"], {"name"}),
        (["--config.model.name=own.py:Net", "--config.model.norm=none"], {"name", "norm"}),
        (["--config.model.name=cnn"], {"name", "norm", "channels"}),
        (["--config.model.norm=none"], {"name", "norm", "channels"}),
    ):
        assert set(lib.load(str(file), flags).model) == left
