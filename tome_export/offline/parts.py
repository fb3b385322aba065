"""The folder of what is finished, `OUT.parts`, which lets a killed run go on.

It holds the list of files, a description of the request, and a parquet file for each finished shard.
Everything in it gets its name when it is whole, the folder too. The end is three steps, each of which may be
the last of a killed run: the merged file is named `merged.parquet` in the folder; it is renamed to OUT; the
folder is removed, under another name. So a folder that says `moving` and has no `merged.parquet` is one whose
OUT is in its place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tome_export import staging
from tome_export.errors import RequestError
from tome_export.offline.listing import Listing, take_listing
from tome_export.offline.request import Description, Request
from tome_export.offline.table import Answers, merge, write_part

_DESCRIPTION, _MOVING, _MERGED, _SCRATCH = "request.json", "moving", "merged.parquet", "scratch"
_MOST_IN_SHARD, _SHARDS = 2000, 64


@dataclass(frozen=True)
class Parts:
    """The folder of an output file; made by `open_parts`."""

    out: Path
    folder: Path
    description: Description
    labels: Sequence[str] | None

    @property
    def listing(self) -> Listing:
        return Listing(self.folder.absolute(), self.description.images, self.description.ignored)

    @property
    def shards(self) -> int:
        return -(-self.description.images // self.description.shard)

    @property
    def scratch_note(self) -> Path:
        """Where the path of Ray's temporary folder is kept, for the run after a killed one."""
        return self.folder / _SCRATCH

    @property
    def is_moving(self) -> bool:
        """Whether everything is merged, by a run that was then killed."""
        return (self.folder / _MOVING).exists()

    def bounds(self, shard: int) -> tuple[int, int]:
        """Positions of its first image, and after its last, in the listing."""
        start = shard * self.description.shard
        return start, min(start + self.description.shard, self.description.images)

    def unfinished(self) -> list[int]:
        """Numbers of the shards that have no part yet."""
        return [shard for shard in range(self.shards) if not self._part(shard).exists()]

    def write(self, shard: int, answers: Answers) -> None:
        """Finish a shard. Raises OSError."""
        paths = self.listing.paths(*self.bounds(shard))
        write_part(self._part(shard), self.description.request, paths, answers, self.labels)

    def finish(self) -> None:
        """Merge the parts, move the result to `out`, remove the folder; or what of that a killed run left to
        do. Raises RequestError, OSError."""
        merged = self.folder / _MERGED
        if not self.is_moving:
            partial = self.folder / f".{_MERGED}.partial"
            parts = map(self._part, range(self.shards))
            merge(parts, partial, self.description.request, self.description.images)
            os.replace(partial, merged)
            (self.folder / _MOVING).touch()
        if merged.exists():
            os.replace(merged, self.out)
        remove(self.folder)

    def _part(self, shard: int) -> Path:
        return self.folder / f"{shard:06d}.parquet"


@contextmanager
def open_parts(
    out: Path,
    request: Request,
    labels: Sequence[str] | None,
    shard: int | None = None,
    overwrite: bool = False,
) -> Iterator[Parts]:
    """The parts of `out`, of an earlier run of the same request or new; locked while the block lasts.

    shard: images in a part; None chooses. overwrite: replace `out`, and parts of a different request.
    Raises RequestError: `out` or the parts are in the way, or another run is at work there.
    """
    out = Path(out)
    folder = out.with_name(f"{out.name}.parts")
    if out.is_dir():
        raise RequestError(f"{out}: is a folder; name a file for the answers")
    with ExitStack() as stack:
        stack.enter_context(staging.terminate_as_exit())
        staging.clear_stale(folder)
        if folder.exists():
            stack.enter_context(_locked(folder))
            description = _read(folder)
            if differences := description.request.differences(request):
                if not overwrite and any(folder.glob("[0-9]*.parquet")):  # else nothing is lost
                    raise RequestError(
                        f"{folder}: has the parts of a different request ({differences}); ask for "
                        "the same, or drop them with --overwrite"
                    )
                remove(folder)
        if out.exists() and not overwrite and not (folder / _MOVING).exists():
            raise RequestError(f"{out}: already exists; add --overwrite to replace it, or name another file")
        if not folder.exists():
            try:
                with staging.partial_folder(folder) as partial:
                    taken = take_listing(Path(request.source), partial)
                    chosen = shard or min(_MOST_IN_SHARD, max(1, -(-taken.count // _SHARDS)))
                    description = Description(request, taken.count, taken.ignored, chosen)
                    (partial / _DESCRIPTION).write_text(description.to_json(), encoding="utf-8")
                    partial.rename(folder)  # fails if another run was faster
            except OSError as error:
                raise RequestError(f"{folder}: cannot be written ({error.strerror or error})") from None
            stack.enter_context(_locked(folder))
        yield Parts(out, folder, description, labels)


def remove(folder: Path) -> None:
    """Under a name that says that it is going, so that a kill in between leaves no half of it."""
    doomed = staging.sibling(folder, staging.PARTIAL)
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(staging.locked(folder, strict=True))
        except BlockingIOError:
            raise RequestError(f"{folder}: another predict-many is at work on it") from None
        except OSError:  # no locks on this file system
            pass
        yield


def _read(folder: Path) -> Description:
    try:
        return Description.from_json((folder / _DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, KeyError):
        raise RequestError(
            f"{folder}: is not what predict-many leaves; remove it, or name another output"
        ) from None
