"""What a program needs of an exported bundle: read from its manifest.json and checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

SCHEMA_VERSION = 1
FILTERS = ("bicubic", "bilinear", "bilinear-opencv")


class RequestError(Exception):
    """The request is wrong: the arguments, the bundle or an image. Exit status 2."""


class EngineError(Exception):
    """The engine failed. Exit status 1."""


@dataclass(frozen=True)
class Recipe:
    """From pixels to the model's input: resize, centre crop, `(value / 255 - mean) / std` for R, G and B.

    resize: length of the short side, None for straight to `crop` x `crop`.
    """

    resize: int | None
    crop: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Bundle:
    """files: suffix, such as ".onnx", -> path. output: index of the logits. labels: a name for each class."""

    files: dict[str, Path]
    output: int
    labels: list[str]
    recipe: Recipe


def open_bundle(folder: str, format: str, precision: str) -> Bundle:
    """format: "onnx" or "paddle". precision: "fp32" or another that the bundle holds. Raises RequestError."""
    path = Path(folder)
    try:
        if not path.is_dir():
            raise RequestError(f"{folder}: no such bundle folder")
        data = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RequestError(f"{folder}: not an exported bundle: it has no manifest.json") from None
    except (OSError, ValueError, RecursionError):
        raise RequestError(f"{folder}: manifest.json cannot be read as JSON") from None
    try:
        return _read(path, data, format, precision)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise RequestError(f"manifest.json: damaged ({type(error).__name__}: {error})") from None


def _read(path: Path, data: dict, format: str, precision: str) -> Bundle:
    version = data["schema_version"]
    _check(version == SCHEMA_VERSION, f"schema_version is {version}; this program reads {SCHEMA_VERSION}")
    recipe = _recipe(data["preprocess"])
    classes = data["model"]["num_classes"]
    (image,) = data["inputs"]
    shape = [-1, 3, recipe.crop, recipe.crop]
    _check(image["dtype"] == "float32" and image["shape"] == shape, f"inputs[0] should be float32 {shape}")
    names = [output["name"] for output in data["outputs"]]
    logits = data["outputs"][names.index("logits")]
    shape = [-1, classes]
    _check(logits["dtype"] == "float32" and logits["shape"] == shape, f"logits should be float32 {shape}")
    labels = data.get("labels") or [f"class {index}" for index in range(classes)]
    _check(len(labels) == classes and all(isinstance(label, str) for label in labels), "labels do not fit")
    for artifact in data["artifacts"]:
        if (artifact["format"], artifact["precision"]) == (format, precision):
            files = {PurePosixPath(name).suffix: _inside(path, name) for name in artifact["files"]}
            return Bundle(files, names.index("logits"), labels, recipe)
    there = ", ".join(f"{artifact['format']} {artifact['precision']}" for artifact in data["artifacts"])
    raise RequestError(f"{path}: holds no {format} model in {precision}; it holds {there or 'none'}")


def _recipe(data: dict) -> Recipe:
    fields = ("resize", "crop", "interpolation", "mean", "std")
    recipe = Recipe(*(data[name] for name in fields))
    resize = recipe.crop if recipe.resize is None else recipe.resize
    sides = isinstance(recipe.crop, int) and isinstance(resize, int) and 1 <= recipe.crop <= resize
    _check(sides, "preprocess.crop and resize do not fit")
    known = recipe.interpolation in FILTERS and (data["layout"], data["color"]) == ("NCHW", "RGB")
    _check(known, "preprocess asks for what this program does not know")
    numbers = len(recipe.mean) == len(recipe.std) == 3 and all(std > 0 for std in recipe.std)
    _check(numbers, "preprocess.mean and std should be three numbers each, std above zero")
    return recipe


def _inside(path: Path, name: str) -> Path:
    """A bundle may come from a stranger: no path in it may lead out of its folder."""
    inner = PurePosixPath(name)
    _check(not inner.is_absolute() and ".." not in inner.parts, f"{name!r} is not a path inside the bundle")
    if not (path / inner).is_file():
        raise RequestError(f"{path / inner}: missing from the bundle; export it again")
    return path / inner


def _check(fine: bool, problem: str) -> None:
    if not fine:
        raise RequestError(f"manifest.json: {problem}")
