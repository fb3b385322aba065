"""`tome-export inspect DIR`"""

from __future__ import annotations

from tome_export.commands.session import Debug, Folder, session


def inspect(folder: Folder, debug: Debug = False) -> None:
    """Show a bundle's model, merging schedule, files and parity."""
    with session(debug) as opened:
        from tome_export import views
        from tome_export.bundle import Bundle

        bundle = Bundle.open(folder)
        manifest = bundle.manifest
        print(views.headline(manifest), file=opened.stdout)
        print(f"weights: {views.weights(manifest)}", file=opened.stdout)
        attention = "on" if manifest.tome.prop_attn else "off"
        print(f"proportional attention: {attention}\n\n{views.schedule(manifest)}", file=opened.stdout)
        print(f"\nfiles\n{views.files(bundle)}", file=opened.stdout)
        print(f"\n{views.parity(manifest.parity)}", file=opened.stdout)
        if manifest.precisions:
            print(f"\n{views.precisions(manifest.precisions)}", file=opened.stdout)
