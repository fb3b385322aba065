"""Engines that were built, kept by what they were built of: graph, GPU and TensorRT's version.

An engine is a folder: `engine.plan` and `engine.json`, which says what it is. Another profile replaces it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tome_export import staging
from tome_export.caches import cache_folder
from tome_export.tensorrt.engine import Graph, Profile
from tome_export.tensorrt.gpu import Gpu

PLAN, ABOUT = "engine.plan", "engine.json"


@dataclass(frozen=True)
class Engine:
    """path: of the serialised engine."""

    path: Path
    profile: Profile


def engine_folder(graph: Graph, gpu: Gpu, version: str) -> Path:
    """Where the engine of this graph, on GPUs of this kind, by this TensorRT, is kept."""
    key = "\n".join((graph.sha256, gpu.name, gpu.capability, version))
    return cache_folder() / "engines" / hashlib.sha256(key.encode()).hexdigest()[:32]


def find(folder: Path) -> Engine | None:
    """The engine kept in `folder`, if there is a whole one."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        profile = Profile(**about["profile"])
        if (folder / PLAN).stat().st_size == about["size"]:
            return Engine(folder / PLAN, profile)
    except (OSError, ValueError, TypeError, KeyError):
        pass
    return None


def keep(folder: Path, plan: bytes, profile: Profile, about: dict[str, str]) -> Engine:
    """Put a serialised engine there, whole or not at all, in place of another. Raises OSError."""
    with staging.partial_folder(folder) as partial:
        (partial / PLAN).write_bytes(plan)
        text = json.dumps(about | {"profile": asdict(profile), "size": len(plan)}, indent=2)
        (partial / ABOUT).write_text(text + "\n", encoding="utf-8")
        staging.swap_in(partial, folder)
    return Engine(folder / PLAN, profile)


def engine_of(
    graph: Graph, gpu: Gpu, version: str, profile: Profile | None, make: Callable[[Profile], bytes]
) -> tuple[Engine, bool]:
    """The kept engine, or one that `make` builds now; and whether it was built.

    profile: None takes any that is kept, and builds with the default one.
    """
    folder = engine_folder(graph, gpu, version)
    found = find(folder)
    if found is not None and profile in (None, found.profile):
        return found, False
    profile = profile or Profile()
    about = {"graph": graph.sha256, "gpu": gpu.name, "capability": gpu.capability, "tensorrt": version}
    return keep(folder, make(profile), profile, about), True
