"""What `tome-export serve` needs beside the runtimes, said before anything of it is imported."""

from __future__ import annotations

from importlib.util import find_spec

from tome_export.errors import MissingExtraError

PACKAGES = {
    "ray": "ray",
    "starlette": "ray[serve]",
    "uvicorn": "ray[serve]",
    "grpc": "ray[serve]",
    "yaml": "ray[serve]",
    "tritonclient": "tritonclient",
    "python_multipart": "python-multipart",
}
"""Module -> the package that brings it."""


def check_installed() -> None:
    """Raises MissingExtraError that names what is missing."""
    missing = sorted({package for module, package in PACKAGES.items() if find_spec(module) is None})
    if missing:
        raise MissingExtraError(f'{", ".join(missing)} not installed: pip install "tome-export[serve]"')
