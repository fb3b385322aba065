"""What a replica does for a request: a bundle's model, batched, and picture files around it.

No Ray and no HTTP here. The model runs in one thread of its own and pictures are prepared in others, so the
event loop, which answers for the replica's health, stays free.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tome_core.errors import TomeError
from tome_export.bundle import Bundle
from tome_export.predict import Prediction, best_classes
from tome_export.runtimes import open_runtime
from tome_export.serving import models
from tome_export.serving.batching import Batcher, Outputs
from tome_export.serving.models import Asked
from tome_export.serving.options import ModelOptions
from tome_export.serving.pictures import prepare
from tome_export.serving.refusal import malformed

_Result = TypeVar("_Result")


class Service:
    """Opened and warmed up by the constructor, which raises RequestError, BundleError, MissingExtraError.

    ran: told the rows and the seconds of every run of the model.
    """

    def __init__(self, options: ModelOptions, ran: Callable[[int, float], None] = lambda rows, seconds: None):
        self.options = options
        bundle = Bundle.open(Path(options.bundle))
        self._manifest = bundle.manifest
        self.models = models.models_of(bundle.manifest, options.name, options.runtime, options.top)
        self._engine = ThreadPoolExecutor(1, "engine")
        self._helpers = ThreadPoolExecutor(max(2, min(8, os.cpu_count() or 2)), "prepare")
        self._runtime = self._engine.submit(
            open_runtime,
            options.runtime,
            bundle,
            precision=options.precision,
            device=options.device,
            threads=options.threads,
            spin=False,
        ).result()
        self.version = self._runtime.version
        for size in sorted({1, options.max_batch}):  # whatever is done only once, is done before the first
            zeros = np.zeros((size, *self._manifest.inputs[0].shape[1:]), np.float32)
            self._engine.submit(self._runtime.run, zeros).result()
        self.batcher = Batcher(
            self._runtime.run, self._engine, options.max_batch, options.max_delay_ms / 1000, ran
        )

    async def aside(self, work: Callable[..., _Result], *arguments: Any) -> _Result:
        """Run something that takes a while in a thread for such things."""
        return await asyncio.get_running_loop().run_in_executor(self._helpers, partial(work, *arguments))

    async def infer(self, asked: Asked) -> Outputs:
        """All outputs of the model asked for. Raises Refusal, and TomeError when the engine fails."""
        if len(asked.input) > self.options.max_batch:
            raise malformed(
                f"{len(asked.input)} rows in a request; this server takes up to {self.options.max_batch}"
            )
        if asked.model.input.name != models.JPEG:
            return await self.batcher(asked.input)
        contents = [row[0] for row in asked.input]
        names = [f"picture {index} of {len(contents)}" for index in range(1, len(contents) + 1)]
        return self._labelled(await self.classify(contents, names))

    async def classify(self, contents: Sequence[bytes], names: Sequence[str]) -> list[list[Prediction]]:
        """Of each picture file its best classes. Each is a request of its own to the model. Raises
        Refusal."""
        if len(contents) > self.options.max_batch:
            raise malformed(
                f"{len(contents)} pictures in a request; this server takes up to {self.options.max_batch}"
            )
        recipe, pixels = self._manifest.preprocess, self.options.max_megapixels * 1_000_000
        images = await asyncio.gather(
            *(self.aside(prepare, content, recipe, pixels, name)
              for content, name in zip(contents, names, strict=True))
        )  # fmt: skip
        answers = await asyncio.gather(*map(self.batcher, images))
        return [
            best_classes(answer["logits"][0], self._manifest.labels, self.options.top) for answer in answers
        ]

    def check(self) -> None:
        """Raises TomeError if the engine cannot be used any more."""
        if self._engine._shutdown:
            raise TomeError("the engine is closed")

    def close(self) -> None:
        """Free the engine. What is running ends first."""
        self._engine.submit(self._runtime.close)
        self._engine.shutdown(wait=True)
        self._helpers.shutdown(wait=False, cancel_futures=True)

    def _labelled(self, rows: Sequence[Sequence[Prediction]]) -> Mapping[str, np.ndarray]:
        labels = np.array([[entry.label.encode() for entry in row] for row in rows], object)
        return {
            models.LABELS: labels,
            models.PROBABILITIES: np.array([[e.probability for e in row] for row in rows], np.float32),
            models.CLASSES: np.array([[entry.index for entry in row] for row in rows], np.int32),
        }
