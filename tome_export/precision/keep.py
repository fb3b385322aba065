"""`--keep-float`: what stays in float."""

from __future__ import annotations

from collections.abc import Sequence

from tome_export.errors import RequestError

ALWAYS = ("embed", "head")
"""Patch embedding and classifier: always in float, so naming them changes nothing."""


def parse_keep(names: Sequence[str | int]) -> tuple[int, ...]:
    """The blocks among these names, in order. Raises RequestError for what is neither a block's number nor in
    `ALWAYS`."""
    blocks = set()
    for name in map(str, names):
        if name.strip() in ALWAYS:
            continue
        if not name.strip().isdecimal():
            raise RequestError(
                f"nothing called {name!r} to keep in float; name blocks by number, from 0, or "
                f"{' or '.join(ALWAYS)}"
            )
        blocks.add(int(name))
    return tuple(sorted(blocks))


def check_keep(blocks: Sequence[int], depth: int) -> None:
    """Raises RequestError for a block that the model does not have, or if no block is left to reduce."""
    beyond = [block for block in blocks if block >= depth]
    if beyond:
        raise RequestError(
            f"there is no block {beyond[0]} to keep in float: the model's are 0 to {depth - 1}"
        )
    if len(set(blocks)) == depth:
        raise RequestError("every block is to be kept in float, which leaves nothing to reduce")
