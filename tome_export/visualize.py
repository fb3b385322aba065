"""Draw what a bundle merges in image files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from tome_export.bundle import Bundle
from tome_export.errors import ImageError, RequestError
from tome_export.pictures.panels import patch_grid, view
from tome_export.pictures.sheet import Panel, plain, sheet
from tome_export.predict import Prediction, best_classes
from tome_export.preprocess import load_image
from tome_export.runtimes import Runtime, open_runtime
from tome_export.sources import block_labels, sources_after_blocks

SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
STRIP_SIZE = 640
"""Long side in pixels of the panels of a strip over depth, unless asked otherwise."""
_STRIP_PANELS = 6
_AS_ASKED = {
    "JPEG": {"quality": 92, "subsampling": 0},  # colour at full resolution, or outlines would bleed
    "WEBP": {"lossless": True},
    "TIFF": {"compression": "tiff_lzw"},
}


@dataclass(frozen=True)
class Seen:
    """What a model made of one photograph.

    sources: (block, group of each input token after it, int [tokens]) for the blocks to show, the last one
    last. top: its first class; None if it has only one.
    """

    sources: tuple[tuple[int, np.ndarray], ...]
    top: Prediction | None


@dataclass(frozen=True)
class Drawn:
    """runtime: name and version. seen: for each photograph. size: of the picture, (width, height)."""

    runtime: str
    seen: tuple[Seen, ...]
    size: tuple[int, int]


def visualize_files(
    folder: Path,
    photos: Sequence[Path],
    out: Path,
    runtime: str = "",
    precision: str = "fp32",
    device: str = "cpu",
    blocks: bool = False,
    size: int | None = None,
) -> Drawn:
    """Write one picture to `out`: a row for each photo, the original and beside it what the model merged.

    runtime: of `tome_export.runtimes.RUNTIMES`; "" takes the first format with this precision. blocks: a
    panel after each merging block, at most six of them evenly spread, in place of only the last. size: the
    photos' long side as shown, None for their own (with `blocks` at most 640 pixels). The format follows the
    suffix of `out`, which is replaced if it exists.
    Raises BundleError, ImageError, RequestError, MissingExtraError; then nothing is written.
    """
    _check_out(out, photos)
    bundle = Bundle.open(folder)
    images = [load_image(path) for path in photos]
    name = runtime or bundle.first_format(precision)
    # Without the final groups among its outputs, or for those in between, its decisions must be seen.
    taps = blocks or all(output.name != "sources" for output in bundle.manifest.outputs)
    with open_runtime(name, bundle, precision=precision, device=device, taps=taps) as opened:
        seen = tuple(look(bundle, opened, image, blocks) for image in images)
        used = f"{opened.name} {opened.version}"
    page = draw(bundle, [path.name for path in photos], images, seen, size)
    _save(page, out)
    return Drawn(used, seen, page.size)


def look(bundle: Bundle, runtime: Runtime, photo: Image.Image, blocks: bool) -> Seen:
    """Run the bundle's model on a photograph. Raises ImageError.

    runtime: opened with taps if there are to be `blocks`, or the bundle has no output `sources`.
    """
    manifest = bundle.manifest
    image = manifest.preprocess.apply(photo)
    outputs = runtime.run(image)
    last = manifest.model.depth - 1
    if "sources" in outputs and not blocks:
        sources = ((last, outputs["sources"][0]),)
    else:
        rows, columns = patch_grid(manifest)
        special = manifest.tome.tokens[0] - rows * columns
        labels = block_labels(outputs, manifest.model.depth)
        found = sources_after_blocks(labels, manifest.tome.tokens[0], special > 0, special > 1)
        merging = [block for block, r in enumerate(manifest.tome.r) if r > 0]
        shown = evenly(merging, _STRIP_PANELS) if blocks and merging else [last]
        sources = tuple((block, found[block][0]) for block in shown)
    one_class = manifest.model.num_classes == 1
    return Seen(sources, None if one_class else best_classes(outputs["logits"][0], manifest.labels, 1)[0])


def draw(
    bundle: Bundle,
    names: Sequence[str],
    photos: Sequence[Image.Image],
    seen: Sequence[Seen],
    size: int | None = None,
) -> Image.Image:
    """The picture of these photographs under these names, RGB; see `visualize_files`. Raises ImageError."""
    manifest = bundle.manifest
    grid, tokens = patch_grid(manifest), manifest.tome.tokens
    rows = []
    for name, photo, its in zip(names, photos, seen, strict=True):
        strip = len(its.sources) > 1
        if size is None and strip:
            shown = view(photo, manifest.preprocess, grid, min(STRIP_SIZE, max(photo.size)))
        else:
            shown = view(photo, manifest.preprocess, grid, size)
        row = [Panel(shown.photo, plain(name), _class_text(its.top))]
        for block, sources in its.sources:
            count = f"{tokens[block + 1]} tokens"
            caption = f"block {block}: {count}" if strip else f"{tokens[0]} -> {count}"
            note = (
                f"{manifest.model.name} at {manifest.model.image_size} px"
                if block == its.sources[0][0]
                else ""
            )
            row.append(Panel(shown.merged(sources), caption, note))
        rows.append(row)
    return sheet(rows)


def _class_text(top: Prediction | None) -> str:
    if top is None:
        return ""
    label = plain(top.label)
    unreadable = label.count("?") > top.label.count("?")
    return f"{f'class {top.index}' if unreadable else label}  {top.probability:.2f}"


def _check_out(out: Path, photos: Sequence[Path]) -> None:
    """Raise RequestError for what could not be written, before any long work."""
    if out.suffix.lower() not in SUFFIXES:
        raise RequestError(f"{out}: a picture's name ends in {', '.join(SUFFIXES)}")
    if out.is_dir():
        raise RequestError(f"{out}: is a folder; name a file")
    if not out.parent.is_dir():
        raise RequestError(f"{out}: there is no folder {out.parent}")
    if out.exists() and any(path.exists() and out.samefile(path) for path in photos):
        raise RequestError(f"{out}: is one of the photos; choose another name")


def _save(page: Image.Image, out: Path) -> None:
    kind = SUFFIXES[out.suffix.lower()]
    file = BytesIO()
    try:
        page.save(file, kind, **_AS_ASKED.get(kind, {}))
    except (OSError, ValueError) as error:
        raise ImageError(
            f"{out}: {page.width} x {page.height} pixels do not fit a {kind} file ({error}); "
            "choose a --size, or .png"
        ) from None
    try:
        out.write_bytes(file.getvalue())
    except OSError as error:
        raise RequestError(f"{out}: cannot be written ({error.strerror})") from None


def evenly(blocks: Sequence[int], most: int) -> list[int]:
    """At most `most` of the blocks, evenly spread, the last one always."""
    if len(blocks) <= most:
        return list(blocks)
    return [blocks[round((i + 1) * len(blocks) / most) - 1] for i in range(most)]
