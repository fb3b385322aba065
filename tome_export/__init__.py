"""Export Token Merging models to Paddle Inference and ONNX, with proof that they agree.

    from tome_export import export

    bundle = export("vit_b16", "./infer", r=16)  # or a model object, patched or not

Names are imported when first used: importing the package imports no engine.
"""

from importlib import import_module

_HOME_OF = {"Bundle": "bundle", "export": "pipeline", "open_runtime": "runtimes"}
__all__ = sorted(_HOME_OF)


def __getattr__(name: str):
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
