"""Which class of the model a folder's name, or a label in a list, means.

The same rule for all names together, the first that fits:

1. every name is one of the bundle's labels (or the WordNet number a label starts with): that label's class;
2. every name is a whole number below the number of classes: that class;
3. folders only: there are as many folders as classes: by sorted name, as torchvision's ImageFolder does.

Anything else is an error, since a wrong guess gives a wrong accuracy without a sign of it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from tome_export.errors import RequestError

BY_LABEL, BY_NUMBER, BY_ORDER = "by label", "by class number", "by sorted folder name"

_WORDNET = re.compile(r"(n\d{8})\b")


def match_classes(
    names: Sequence[str], labels: Sequence[str] | None, classes: int, *, folders: bool, where: str
) -> tuple[dict[str, int], str]:
    """Each distinct name's class index, and the rule that was used.

    names: distinct, in any order. labels: the bundle's, or None. folders: whether rule 3 may apply.
    where: starts the error's line. Raises RequestError: no rule fits.
    """
    by_label, why_label = _by_label(names, labels)
    if by_label is not None:
        return by_label, BY_LABEL
    by_number, why_number = _by_number(names, classes)
    if by_number is not None:
        return by_number, BY_NUMBER
    if folders and len(names) == classes:
        return {name: index for index, name in enumerate(sorted(names))}, BY_ORDER
    count = f"; {len(names)} class folders are not the model's {classes} classes" if folders else ""
    raise RequestError(f"{where}: cannot tell the classes: {why_label}; {why_number}{count}")


def _by_label(names: Sequence[str], labels: Sequence[str] | None) -> tuple[dict[str, int] | None, str]:
    if labels is None:
        return None, "the bundle has no labels (export with --labels)"
    meant = defaultdict(set)
    for index, label in enumerate(labels):
        meant[label].add(index)
        if number := _WORDNET.match(label):
            meant[number[1]].add(index)
    for name in names:
        if name not in meant:
            return None, f"{name!r} is not one of the bundle's labels ({labels[0]!r}, ...)"
        if len(meant[name]) > 1:
            several = " and ".join(map(str, sorted(meant[name])))
            return None, f"{name!r} is the label of classes {several}"
    return {name: min(meant[name]) for name in names}, ""


def _by_number(names: Sequence[str], classes: int) -> tuple[dict[str, int] | None, str]:
    numbers: dict[str, int] = {}
    for name in names:
        if not (name.isascii() and name.isdecimal() and len(name) < 10 and int(name) < classes):
            return None, f"{name!r} is not a class number from 0 to {classes - 1}"
        numbers[name] = int(name)
    return numbers, ""
