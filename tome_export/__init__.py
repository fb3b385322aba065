"""Export Token Merging models to Paddle Inference and ONNX, with proof that they agree.

from tome_export import ExportRequest, export

bundle = export(ExportRequest("vit_b16", r=16), "./infer")
"""

from importlib import import_module

_HOMES = {
    "Bundle": "bundle",
    "ExportRequest": "export",
    "export": "export",
    "open_runtime": "runtimes",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
