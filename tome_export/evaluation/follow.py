"""What the command does while an evaluation runs: progress, the predictions file, an orderly interruption."""

from __future__ import annotations

from contextlib import ExitStack

from tome_export.evaluation.dataset import Dataset
from tome_export.evaluation.interrupt import Interrupt
from tome_export.evaluation.outcomes import Outcomes, Watch
from tome_export.evaluation.progress import ProgressView
from tome_export.evaluation.table import PredictionsFile


class Follower(Watch):
    """Use as a context: leaving it takes the progress away, restores the signals and finishes the file, or
    removes it if no picture was decided."""

    def __init__(self, view: ProgressView, file: PredictionsFile | None):
        self._view, self._file = view, file
        self._interrupt = Interrupt()
        self._rows = 0

    def __enter__(self) -> Follower:
        self._stack = ExitStack()
        self._stack.callback(self._close_file)
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def started(self, dataset: Dataset, outcomes: Outcomes) -> None:
        self._stack.enter_context(self._interrupt)
        self._stack.callback(self._view.stop)
        self._dataset = dataset
        self._view.start(len(dataset.samples))

    def advanced(self, outcomes: Outcomes, start: int, stop: int) -> None:
        if self._file is not None:
            self._file.add(self._dataset, outcomes, start, stop)
        self._rows = stop
        self._view.advance(stop)

    def stopped(self) -> bool:
        return self._interrupt.asked

    def _close_file(self) -> None:
        if self._file is not None:
            if self._rows:
                self._file.finish()
            else:
                self._file.discard()
