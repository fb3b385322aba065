"""What merged, drawn on one of the inputs, with the tokens marked whose group is not the reference's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from tome_core.errors import TomeError
from tome_export.manifest import Manifest
from tome_export.parity.report import words
from tome_export.parity.report.markup import Html, join, paragraph, section, tag
from tome_export.parity.report.numbers import plural
from tome_export.parity.samples import KINDS, make_sample
from tome_export.parity.verify import Verification
from tome_export.pictures.html import data_uri
from tome_export.pictures.panels import View, patch_grid, view
from tome_export.preprocess import Preprocess, load_image

_SIZE = 448  # pixels along the long side; the page shows it at about half of that


def groups(found: Verification) -> Html | None:
    """None where nothing merges."""
    manifest = found.bundle.manifest
    if not any(manifest.tome.r) or not found.results:
        return None
    if found.picture is None:
        return _only("None of the inputs is a picture to draw on.")
    if not found.groups:
        return _only("No runtime made decisions that could be drawn.")
    try:
        shown = _view(found.picture, manifest)
        figures = _figures(found, shown)
    except TomeError as error:  # the photograph may have gone, or be unfit for drawing
        return _only(f"The groups could not be drawn: {error}.")
    told = (
        "Every group of merged tokens has its mean colour and an outline of its own; a group may lie in "
        "several parts. A cross marks a token that is in another group than in the reference; groups that "
        "share most tokens are taken for the same. Drawn on what the model sees of "
        f"{words.input_name(found.picture)}."
    )
    return section("What merged", paragraph(told), tag("div", *figures, class_="pictures"), name="groups")


def differing(groups: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """bool [tokens]: whether a token is in another group than in the reference. Both int [tokens].

    How groups are numbered does not matter: those that share most tokens are taken for the same, one to one.
    No token differs exactly if both divide the tokens alike.
    """
    pairs, pair, shared = np.unique(
        np.stack([groups, reference]), axis=1, return_inverse=True, return_counts=True
    )
    ours, theirs, same = set(), set(), np.zeros(len(shared), bool)
    for index in np.argsort(-shared, kind="stable").tolist():
        one, other = pairs[:, index].tolist()
        if one not in ours and other not in theirs:
            same[index] = True
            ours.add(one)
            theirs.add(other)
    return ~same[pair.reshape(-1)]


def picture_of(name: str, preprocess: Preprocess) -> Image.Image:
    """An input as 8-bit RGB: a file as it is, a synthetic sample with the normalisation undone.

    name: for `tome_export.parity.samples.make_sample`. Raises ImageError, RequestError.
    """
    if not _synthetic(name):
        return load_image(name)
    image = make_sample(name, preprocess).transpose(1, 2, 0) * np.float32(preprocess.std) + np.float32(
        preprocess.mean
    )
    return Image.fromarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8))


def _synthetic(name: str) -> bool:
    kind, _, seed = name.partition(":")
    return kind in KINDS and seed.isdecimal()


def _view(name: str, manifest: Manifest) -> View:
    """What the model sees, and nothing around it: tokens are small enough as it is."""
    recipe = manifest.preprocess
    picture = picture_of(name, recipe)
    if not _synthetic(name):  # a sample is made as large as what the model sees
        left, top, right, bottom = recipe.seen(*picture.size)
        width, height = (max(1, round(side)) for side in (right - left, bottom - top))
        picture = picture.resize((width, height), Image.Resampling.BICUBIC, (left, top, right, bottom))
    return view(picture, replace(recipe, resize=None), patch_grid(manifest), _SIZE)


def _figures(found: Verification, shown: View) -> list[Html]:
    reference = found.groups.get(found.against)
    drawn = [_figure(shown, shown.photo, tag("strong", "The input"), None)]
    titles = {found.against: words.runtime(found.against)}
    titles |= {f"{result.runtime} {result.precision}": words.who(result) for result in found.results}
    missing = [title for who, title in titles.items() if who not in found.groups]
    for who, its in found.groups.items():
        title = titles.get(who, who)
        title = title[:1].upper() + title[1:]
        count = f"{plural(len(its), 'token')} in {plural(len(np.unique(its)), 'group')}"
        marks = None
        if who == found.against:
            told = f"the reference: {count}"
        elif reference is None or reference.shape != its.shape:
            told = f"{count}; nothing to compare them with"
        else:
            marks = differing(its, reference)
            wrong = int(marks.sum())
            told = (
                f"{count}; {wrong} of {len(its)} in another group"
                if wrong
                else f"{count}, all as in the reference"
            )
        caption = join([tag("strong", title), tag("br"), told])
        drawn.append(_figure(shown, shown.merged(its), caption, marks))
    if missing:
        drawn.append(
            tag(
                "p",
                f"{', '.join(missing)}: its decisions are not valid, so there is nothing to draw.",
                class_="soft",
            )
        )
    return drawn


def _figure(shown: View, picture: Image.Image, caption: Html, marks: np.ndarray | None) -> Html:
    width, height = shown.photo.size
    crosses = [] if marks is None or not marks.any() else _crosses(shown, marks)
    image = tag("image", href=data_uri(picture), width=width, height=height, preserveAspectRatio="none")
    drawn = tag("svg", image, *crosses, viewBox=f"0 0 {width} {height}", role="img", aria_label="what merged")
    return tag("figure", drawn, tag("figcaption", caption))


def _crosses(shown: View, marks: np.ndarray) -> list[Html]:
    """A black cross with a white edge, which is seen on any colour. Special tokens have no place."""
    rows, columns = shown.grid
    left, top, right, bottom = shown.box
    wide, high = (right - left) / columns, (bottom - top) / rows
    path = []
    for row, column in np.argwhere(marks[-rows * columns :].reshape(rows, columns)).tolist():
        x, y = left + (column + 0.5) * wide, top + (row + 0.5) * high
        a, b = 0.26 * wide, 0.26 * high
        path.append(
            f"M{x - a:.1f} {y - b:.1f}l{2 * a:.1f} {2 * b:.1f}m{-2 * a:.1f} 0l{2 * a:.1f} {-2 * b:.1f}"
        )
    thin = 0.11 * min(wide, high)
    lines = "".join(path)
    return [
        tag("path", d=lines, class_="halo", stroke_width=2.4 * thin),
        tag("path", d=lines, class_="cross", stroke_width=thin),
    ]


def _only(told: str) -> Html:
    return section("What merged", paragraph(told), name="groups")
