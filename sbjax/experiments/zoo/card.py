"""The card of a zoo: what its networks are and how they were made, for programs and for people."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sbjax import trees
from sbjax.common.files import plain, write_atomically, write_json
from sbjax.data import zoo_blocks
from sbjax.experiments.zoo import laws as laws_lib
from sbjax.experiments.zoo.arm import Arm
from sbjax.frame.plan import Plan


def write_card(path: Path, arm: Arm, plan: Plan, digests: Mapping[str, str], *, identity: str, data: str) -> None:
    """`zoo.json`, which `sbjax.data.zoo.read` reads, and the same in words, `README.md`."""
    source, task, said = arm.source, arm.plan.task, laws_lib.in_words(arm.laws)
    frozen = sum(int((~mask).sum()) for mask in trees.flatten(source.frozen.get("trainable", {})).values())
    card = {
        "format": zoo_blocks.FORMAT,
        "kind": source.kind,
        "networks": plan.replicas,
        "seed": plan.seed,
        "model": dict(source.model),
        "classes": source.classes,
        "input_shape": list(source.input_shape),
        "asymmetry": dict(source.asymmetry),
        "parameters": source.size,
        "trainable": source.size - frozen,
        "data": {
            "dataset": task.dataset,
            "train_examples": len(arm.data.train_labels),
            "test_examples": len(arm.data.test_labels),
            "digest": data,
        },
        "batch_size": task.batch_size,
        "peak_epochs": task.peak_epochs,
        "laws": said,
        "words": {name: list(getattr(arm.laws, words)) for name, words in laws_lib.WORDS.items()},
        "fingerprint": source.fingerprint,
        "identity": identity,
        "blocks": dict(digests),
    }
    write_json(path / zoo_blocks.CARD, card)
    write_atomically(path / "README.md", _in_words(plain(card)))


def _in_words(card: Mapping[str, Any]) -> str:
    data, options = card["data"], ", ".join(f"{name}={value!r}" for name, value in card["model"].items())
    frozen = [
        f"- frozen entries, the same in all networks: {json.dumps(card['asymmetry'])}; SHA-256 {card['fingerprint']}"
    ]
    frozen = frozen if card["fingerprint"] else []
    lines = [
        f"# {card['networks']:,} networks, {card['kind']}",
        "",
        f"- network: {options}; {card['classes']} classes, input {'x'.join(map(str, card['input_shape']))}",
        f"- parameters: {card['parameters']:,}, of which {card['trainable']:,} are trained",
        *frozen,
        f"- data: {data['dataset']}, {data['train_examples']:,} training examples, {data['test_examples']:,} of the "
        f"test split; standardised; SHA-256 {data['digest']}",
        f"- seed: {card['seed']}; batches of {card['batch_size']}; the learning rate rises over "
        f"{card['peak_epochs']:g} epochs and falls to 0 at the network's own end (0 = it is constant)",
        "",
        "| drawn for each network | law |",
        "| --- | --- |",
        *(f"| {name} | {law} |" for name, law in card["laws"].items()),
        "",
        "Start: as the network's own, kernels times `init_scale`. The decay is decoupled and acts on kernels; `sgd` "
        "has momentum 0.9. Accuracy and loss are those of the test split after each epoch.",
        "",
        "    from sbjax.data import zoo",
        "    nets = zoo.read(FOLDER)",
        "",
    ]  # fmt: skip
    return "\n".join(lines)
