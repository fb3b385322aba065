"""What every server of a bundle asks of the name that it serves a model by, and of a batch."""

from __future__ import annotations

import re
from collections.abc import Iterator

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_LARGEST_BATCH = 4096


def wrong(name: str, max_batch: int) -> Iterator[str]:
    """In words, by their options."""
    if not _NAME.fullmatch(name):
        yield f"--name {name!r} is not a model name: letters, digits, _, . and -, such as vit_b16"
    if not 1 <= max_batch <= _LARGEST_BATCH:
        yield f"--max-batch should be 1 to {_LARGEST_BATCH}, not {max_batch}"
