"""`tome-export verify DIR`"""

from __future__ import annotations

from tome_export.commands.session import Debug, Folder, session


def verify(folder: Folder, debug: Debug = False) -> None:
    """Check a bundle's hashes, and that its runtimes agree with each other (needs no Python model)."""
    with session(debug) as opened:
        from tome_export import views
        from tome_export.console import ConsoleSteps
        from tome_export.verify import verify_bundle

        steps = ConsoleSteps(opened.stdout, {"hashes": "hash the files", "parity": "run every runtime"})
        results = verify_bundle(folder, steps)
        print(
            f"\n{views.parity(results)}" if results else "\n  one runtime: nothing to compare",
            file=opened.stdout,
        )
        print(
            f"\n{folder} is whole and its runtimes agree" if results else f"\n{folder} is whole",
            file=opened.stdout,
        )
