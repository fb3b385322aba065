"""`--predictions out.csv`: a row per picture, written as the evaluation goes along.

The rows go to `out.csv.partial`, which takes the name `out.csv` when the evaluation ends, by itself or by an
interruption. If it is killed, the partial file holds every batch that was finished.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

from tome_export.errors import RequestError
from tome_export.evaluation.dataset import Dataset
from tome_export.evaluation.outcomes import TOP, Answers, Outcomes


class PredictionsFile:
    """Columns: path, label, top1, probability1, ... top5, probability5, correct, error; for a second model
    `second_top1` and so on before error. Classes are indices. Raises RequestError if it cannot be written."""

    def __init__(self, path: Path, models: int):
        self._path, self._partial = path, path.with_name(f"{path.name}.partial")
        if path.is_dir():
            raise RequestError(f"{path}: is a folder; name a file for the predictions")
        try:
            self._file = open(self._partial, "w", newline="", encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise RequestError(f"{path}: cannot be written ({error.strerror})") from None
        self._writer = csv.writer(self._file)
        columns = ["path", "label"]
        for prefix in ("", "second_")[:models]:
            for rank in range(1, TOP + 1):
                columns += [f"{prefix}top{rank}", f"{prefix}probability{rank}"]
            columns.append(f"{prefix}correct")
        self._writer.writerow([*columns, "error"])

    def add(self, dataset: Dataset, outcomes: Outcomes, start: int, stop: int) -> None:
        """Write the rows of positions `start` to `stop` - 1, and hand them to the system."""
        for i in range(start, stop):
            sample = dataset.samples[i]
            row: list[object] = [sample.path, sample.label]
            for answers in outcomes.answers:
                row += _cells(answers, i, sample.label, bool(outcomes.read[i]))
            self._writer.writerow([*row, outcomes.errors.get(i) or _trouble(outcomes, i)])
        self._file.flush()

    def finish(self) -> None:
        """Give the file its name."""
        self._file.close()
        os.replace(self._partial, self._path)

    def discard(self) -> None:
        """Remove it: nothing was evaluated."""
        self._file.close()
        self._partial.unlink(missing_ok=True)


def _cells(answers: Answers, i: int, label: int, read: bool) -> list[object]:
    cells: list[object] = []
    for index, probability in zip(answers.classes[i], answers.probabilities[i], strict=True):
        cells += [int(index), f"{probability:.6f}"] if index >= 0 else ["", ""]
    cells += [""] * (2 * TOP - len(cells))
    return [*cells, int(answers.classes[i, 0] == label) if read else ""]


def _trouble(outcomes: Outcomes, i: int) -> str:
    without = any(answers.classes[i, 0] < 0 for answers in outcomes.answers)
    return "the model's answer is not a number" if without else ""
