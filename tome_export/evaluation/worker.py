"""A worker process: reads pictures and prepares them, until the evaluation closes its end of the pipe.

It imports Pillow and numpy, and never an engine. Slot numbers of four bytes come in on descriptor 0, which
all workers share, so whoever is free takes the next picture, and go out on descriptor 1; both pipes carry
such short messages whole. The end of the input, which the death of the evaluation brings about too, ends it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict

from tome_export.errors import ImageError
from tome_export.evaluation.slots import FAILED, Slots
from tome_export.preprocess import Preprocess, load_inputs

NUMBER_BYTES = 4

_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
_START += "from tome_export.evaluation.worker import main; main()"


def command(descriptor: int, count: int, recipes: list[Preprocess]) -> list[str]:
    """What starts a worker on the slots in `descriptor`.

    A fresh interpreter: a fork would copy an engine's locks without its threads, and `multiprocessing` would
    run the user's script again.
    """
    job = {"descriptor": descriptor, "count": count, "recipes": [asdict(recipe) for recipe in recipes]}
    return [sys.executable, "-c", _START, json.dumps(sys.path), json.dumps(job)]


def main() -> None:
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # meant for the evaluation, which closes the pipe
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    job = json.loads(sys.argv[2])
    recipes = [Preprocess(**_tuples(recipe)) for recipe in job["recipes"]]
    slots = Slots(job["descriptor"], job["count"], recipes)
    while number := os.read(0, NUMBER_BYTES):
        slot = int.from_bytes(number, "little")
        path = os.fsdecode(slots.take(slot))
        try:
            for images, prepared in zip(slots.images, load_inputs(path, recipes), strict=True):
                images[slot] = prepared[0]
            slots.finish(slot)
        except (ImageError, MemoryError) as error:
            slots.write_note(slot, FAILED, reason(path, error).encode("utf-8", "replace"))
        try:
            os.write(1, number)
        except BrokenPipeError:  # the evaluation is gone
            return


def reason(path: str, error: ImageError | MemoryError) -> str:
    """What the error says about the file, without the path it starts with."""
    if isinstance(error, MemoryError):
        return "not enough memory to read it"
    return str(error).removeprefix(f"{path}: ")


def _tuples(recipe: dict) -> dict:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in recipe.items()}
