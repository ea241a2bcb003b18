"""Configurations with one or two things wrong with them, drawn from the config files with fixed seeds."""

import copy
import pathlib
import random
import runpy

ROOT = pathlib.Path(__file__).parents[1]
# Config files with words that need no data from elsewhere, and the arms that are kept besides the reference.
STARTS = (
    ("quickstart.py", "smoke"),
    ("images.py", "digits,mlp,smoke"),
    ("images.py", "digits,cnn,smoke"),
    ("lmc.py", "smoke"),
    ("mli.py", "smoke"),
    ("designs.py", "digits,smoke"),
    ("ising.py", "smoke"),
    ("qcd.py", "smoke"),
    ("functions.py", "smoke"),
    ("landscape.py", "smoke"),
    ("pdes.py", "burgers,smoke"),
)
# Those of later kinds, drawn from apart, so that the cases of the others stay as they are.
LATER = (
    ("figure1.py", "cifar10,resnet18,cifar,smoke"),
    ("text.py", "rotten_tomatoes,bag,smoke"),
    ("text.py", "rotten_tomatoes,textcnn,smoke"),
    ("text.py", "rotten_tomatoes,transformer,smoke"),
    ("involution.py", "smoke"),
    ("linear_nets.py", "smoke"),
    ("relu_minima.py", "families,smoke"),
    ("relu_minima.py", "search,smoke"),
)
# And those after these.
LAST = (
    ("colour.py", "cifar10,smoke"),
    ("colour.py", "cifar10,bins,brief,smoke"),
    ("bayes.py", "mlp8,digits,smoke"),
    ("graphs.py", "csbm,smoke"),
    ("identifiability.py", "drops,smoke"),
    ("identifiability.py", "scatter,smoke"),
    *(("attention.py", f"{part},smoke") for part in ("dimensions", "planted", "barriers", "flows")),
    ("duality.py", "smoke"),
    ("duality.py", "hot,smoke"),
    ("hidden_symmetries.py", "smoke"),
    ("lattice_collision.py", "smoke"),
    ("symmetry_along.py", "smoke"),
    ("symmetry_along.py", "decay,smoke"),
    ("involution.py", "images,smoke"),
    ("metanets.py", "smoke"),
    ("generative.py", "smoke"),
    ("zoo.py", "smoke"),
)
COLOURS = f"{ROOT / 'tests' / 'toy_colours.py'}:load"
TEXTS = f"{ROOT / 'tests' / 'toy_texts.py'}:load"
VALUES = (
    *(None, True, False, -1, 0, 1, 2, 3, 7, 64, 10**6, 10**10, 10**20, -(10**20)),
    *(0.0, 0.5, -0.5, 1e-300, 1e300, float("nan"), float("inf"), 1 + 2j),
    *(
        "",
        " ",
        ",",
        "x",
        "raw",
        "0.5",
        "nan",
        "-1",
        "1,2,3",
        "ünï",
        "a\0b",
        "a\nb",
        "../up",
        "~/x",
        "$HOME",
        "{}",
        "a=b",
    ),
    *("math:sqrt", "no_such_module:x", "nofile.py:f", "folder:", "folder:/nowhere", "x" * 5000),
    *([], (), [1], [0], (-1,), (2.5,), ("a",), (10**9,), (1, "a"), [[1]], (None,), tuple(range(1, 40))),
    *({}, {"a": 1}, {"kind": "image"}, {"name": 3}, {1: 2}, b"x", {1, 2}, object()),
)
RICH = ("model", "arms", "expansion", "optimizer", "second_phase", "interpolation", "task")
NAMES = ("seeds", "lr", "batch_size", "steps", "kind", "name", "", "a b", "ünï", "x.y", "raw", "order", "__class__")


def starts(files=STARTS):
    """The configurations as nested dicts, with at most two arms, by file and words."""
    found = {}
    for file, words in files:
        config = runpy.run_path(str(ROOT / "configs" / file))["get_config"](words)
        tree = config.to_dict()
        suite = tree.pop("suite", None)
        if suite:  # of a suite the first member
            for section, fields in next(iter(suite.values())).items():
                merge = isinstance(fields, dict) and section != "arms"
                tree[section] = {**tree[section], **fields} if merge else fields
        others = [arm for arm in tree["arms"] if arm != tree["reference"]][:1]
        tree["arms"] = {arm: tree["arms"][arm] for arm in (tree["reference"], *others)}
        if tree["task"].get("kind") == "text":
            tree["task"]["dataset"] = TEXTS
        elif tree["task"].get("kind") == "colour":
            tree["task"]["dataset"] = COLOURS
        elif "train_share" in tree["task"] and tree["task"].get("dataset", "digits") != "digits":
            tree["task"].update(dataset="digits", train_share=0.05, eval_share=0.05)
        elif words.startswith("hot"):
            tree["task"]["dataset"] = "digits"
        found[f"{file}:{words}"] = tree
    return found


def paths(tree, prefix=()):
    """Every path of nested dicts, sections and fields."""
    for name, value in tree.items():
        yield (*prefix, name)
        if isinstance(value, dict):
            yield from paths(value, (*prefix, name))


def node(tree, path):
    for name in path:
        tree = tree[name]
    return tree


def near(value, rng):
    """A value of the same type, or nearly."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return type(value)(value * rng.choice((-1, 0, 2, 1000, 0.5)) + rng.choice((0, 1, -1)))
    if isinstance(value, str):
        return rng.choice((value + "x", value.upper(), value[:-1], f"{value},{value}", f" {value}", value * 3))
    if isinstance(value, tuple):
        return rng.choice(((), value + value, value[:1], tuple(-x if isinstance(x, int | float) else x for x in value)))
    return copy.deepcopy(value) | {"x": 1} if isinstance(value, dict) else value


def mutate(tree, rng):
    """(what was done, the changed tree)."""
    tree, said = copy.deepcopy(tree), []
    for _ in range(rng.choice((1, 1, 2))):
        every = list(paths(tree))
        path = rng.choice([one for one in every if one[0] in RICH] if rng.random() < 0.5 else every)
        inside, name = node(tree, path[:-1]), path[-1]
        how = rng.random()
        before = copy.deepcopy(inside[name])
        if how < 0.7:
            inside[name] = near(inside[name], rng) if rng.random() < 0.4 else copy.copy(rng.choice(VALUES))
            what = "left" if repr(before) == repr(inside[name]) else ""
            said.append(f"{what} {'.'.join(map(str, path))}={str(inside[name])[:60]!r}".lstrip())
        elif how < 0.8:
            del inside[name]
            said.append(f"without {'.'.join(map(str, path))}")
        elif how < 0.93:
            new = rng.choice(NAMES) if rng.random() < 0.7 else str(name)[1:]
            inside[new] = rng.choice(VALUES)
            said.append(f"{'.'.join(map(str, (*path[:-1], new)))} new: {str(inside[new])[:60]!r}")
        else:
            other = rng.choice(list(paths(tree)))
            inside[name] = copy.deepcopy(node(tree, other))
            said.append(f"{'.'.join(map(str, path))} as {'.'.join(map(str, other))}")
    return "; ".join(said), tree


def mutated(count, seed=0, files=STARTS):
    """`count` of (start, what was done, tree), each from a seed of its own."""
    trees = starts(files)
    for i in range(count):
        rng = random.Random(f"{seed}-{i}")
        start = rng.choice(list(trees))
        yield (start, *mutate(trees[start], rng))
