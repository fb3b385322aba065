"""Token Merging for PaddlePaddle Vision Transformers, in static-shape operators.

    from tome_core import apply_patch, create_model

    model = create_model("vit_b16")
    apply_patch(model)
    model.r = 16

Names are imported when first used, so that reading the error tree or a schedule does not import Paddle.
"""

from importlib import import_module

_HOMES = {
    "matching": (
        "Match",
        "bipartite_soft_matching",
        "kth_bipartite_soft_matching",
        "random_bipartite_soft_matching",
    ),
    "merging": ("merge_mean", "merge_source", "merge_sum", "merge_wavg", "unmerge"),
    "patch": ("apply_patch",),
    "schedule": ("Schedule", "make_schedule", "parse_r"),
    "visualize": ("draw_groups", "sources_of"),
    "zoo": ("create_model", "get_config", "model_names"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)


def __getattr__(name: str):
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
