"""`tome-export models`"""

from __future__ import annotations


def models() -> None:
    """List the models that can be exported by name."""
    from tome_core.zoo.config import get_config, model_names
    from tome_export.console import giga, table
    from tome_export.pipeline import macs
    from tome_export.request import ExportRequest

    rows: list[tuple[object, ...]] = [
        ("model", "patch", "width", "depth", "heads", "tokens", "multiply-adds", "r = 16")
    ]
    for name in model_names():
        config = get_config(name)
        cost = macs(config, ExportRequest(name, r=16).schedule())
        rows.append(
            (name, config.patch_size, config.embed_dim, config.depth, config.num_heads, config.tokens)
            + (giga(cost.base), f"{cost.base / cost.tome:.2f}x fewer")
        )
    print(table(rows, right=range(1, 8)))
