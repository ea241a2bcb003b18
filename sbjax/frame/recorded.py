"""What `config.json` of a run says: its configuration, and every environment that its numbers come from."""

import logging
import pathlib
import time
from collections.abc import Sequence
from typing import Any

from sbjax.report import against

logger = logging.getLogger(__name__)

FORMAT = 2
"""Of `config.json` and what lies beside it; 1 had sections `lines`, `finish` and `mapping`, and no number."""


def first(
    environments: Sequence[dict[str, Any]],
    overrides: list[str],
    config_file: str | None,
    extended: int,
) -> dict[str, Any]:
    """Of a new run, but for its configuration; `environments` in the order in which they trained."""
    content = {
        "environment": environments[0],
        "overrides": overrides,
        "started": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }
    content |= {"config_file": config_file} if config_file else {}
    content |= {"extended": extended} if extended else {}
    content |= {"continued": list(environments[1:])} if environments[1:] else {}
    return content


def going_on(found: dict[str, Any], now: dict[str, Any], extended: int, folder: pathlib.Path) -> dict[str, Any]:
    """Of a run that goes on, with this environment where it is another one than before, which is logged."""
    content = found if found.get("extended", 0) == extended else {**found, "extended": extended}
    before = [content.get("environment", {}), *content.get("continued", ())][-1]
    changes = [one for one in against.differences(before, now) if one[1] != against.ABSENT]  # not known, not changed
    different = [f"{name}: {was} -> {new}" for name, was, new in changes]
    if not different:
        return content
    logger.warning(
        "%s goes on in another environment than before; its numbers come from both, and the report lists both. "
        "What differs: %s", folder, "; ".join(different),
    )  # fmt: skip
    return {**content, "continued": [*content.get("continued", ()), now]}
