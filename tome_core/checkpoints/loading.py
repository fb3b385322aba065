"""Put named arrays into a model, all of them or none; build the model that fits a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

from tome_core.checkpoints.layouts import Converted, convert
from tome_core.checkpoints.limits import shown
from tome_core.checkpoints.reader import read_checkpoint
from tome_core.checkpoints.resize import resize_position_embedding
from tome_core.errors import CheckpointError
from tome_core.zoo import ViTConfig, create_model, get_config, model_names

_SHOWN = 4
_HEAD_STD = 0.02  # of a new head's weights
_HEAD_SEED = 0
# What makes a model another model; all other fields follow the file.
_IDENTITY = ("patch_size", "embed_dim", "depth", "hidden_dim", "num_heads", "distilled")


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model with a file's weights, in eval mode, and where they came from.

    format and sha256 are those of the file (`Checkpoint`); layout, preprocess and notes are of `Converted`.
    """

    model: nn.Layer
    path: Path
    format: str
    sha256: str
    layout: str
    preprocess: str
    notes: tuple[str, ...]


def load_checkpoint(
    name: str,
    path: str | os.PathLike,
    *,
    layout: str | None = None,
    image_size: int | None = None,
    num_classes: int | None = None,
    reset_head: bool = False,
    allow_nonfinite: bool = False,
) -> LoadedModel:
    """Build the named model with the weights of a file in any supported format and layout.

    Options that change no weight's meaning follow the file: qkv bias, epsilon, tanh layer before the head,
    pooling, image size and number of classes.

    Args:
        name: one of `model_names()`.
        path: the file; see `read_checkpoint`.
        layout: see `convert`.
        image_size: in pixels; None keeps the file's. Position embeddings are resized to it.
        num_classes: None keeps the file's. Another number than the file's needs `reset_head`.
        reset_head: put a small random (seeded) classifier in place of the file's, or of none.
        allow_nonfinite: accept NaN and infinity.

    Raises:
        ModelError: unknown name, or an image size that the patches do not divide.
        CheckpointError: the file cannot be read, or holds another model. One line, with what to do.
    """
    config = get_config(name)
    checkpoint = read_checkpoint(path, allow_nonfinite=allow_nonfinite)
    try:
        converted = convert(checkpoint.tensors, layout, format=checkpoint.format, family=config.family)
        changes, notes = dict(converted.changes), list(converted.notes)
        _check_same_model(config, changes)
        tensors = converted.tensors
        classes = _classes(converted, num_classes, reset_head, config.num_classes)
        if reset_head:
            tensors = _with_new_head(tensors, changes, classes)
            notes.append(f"the classifier is new and random ({classes} classes): train it before use")
        changes["num_classes"] = classes
        _check_heads(tensors, changes)
        if image_size is not None and image_size != changes["image_size"]:
            notes.append(f"position embeddings resized from {changes['image_size']} to {image_size} pixels")
            changes["image_size"] = image_size
            wanted = get_config(name, **changes)
            resized = resize_position_embedding(tensors["pos_embed"], wanted.protected, wanted.patches)
            tensors = {**tensors, "pos_embed": resized}
        model = create_model(name, **changes)
        load_weights(model, tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{shown(path, 300)}: {error}") from error
    return LoadedModel(
        model=model,
        path=checkpoint.path,
        format=checkpoint.format,
        sha256=checkpoint.sha256,
        layout=converted.layout,
        preprocess=converted.preprocess,
        notes=tuple(notes),
    )


def _check_same_model(config: ViTConfig, changes: Mapping[str, Any]) -> None:
    """Raises CheckpointError that says what the file holds, and which name that has, if not `config`'s."""
    if config == _best([config], changes):
        return
    hidden = int(changes["embed_dim"] * changes["mlp_ratio"])
    what = f"{changes['embed_dim']} wide, {changes['depth']} blocks deep, patch {changes['patch_size']}"
    if hidden != 4 * changes["embed_dim"]:
        what += f", MLPs {hidden} wide"
    if "num_heads" in changes:
        what += f", {changes['num_heads']} heads"
    if changes["distilled"]:
        what += ", with a distillation token"
    elif config.distilled:
        what += ", without a distillation token"
    named = sorted(
        (get_config(name) for name in model_names()),
        key=lambda other: (other.global_pool == changes["global_pool"], other.family == config.family),
        reverse=True,
    )
    fits = _best(named, changes)
    advice = f"try --model {fits.name}" if fits else "no model here has that shape"
    raise CheckpointError(f"this file holds a model {what}, not {config.name}: {advice}")


def _best(configs: list[ViTConfig], changes: Mapping[str, Any]) -> ViTConfig | None:
    """The first of `configs` that is the model of the file, whatever its options."""
    told = {**changes, "hidden_dim": int(changes["embed_dim"] * changes["mlp_ratio"])}
    for config in configs:
        if all(getattr(config, field) == told[field] for field in _IDENTITY if field in told):
            return config
    return None


def _classes(converted: Converted, wanted: int | None, reset_head: bool, default: int) -> int:
    held = converted.changes.get("num_classes")
    if reset_head:
        return next(count for count in (wanted, held, default) if count is not None)
    if held is None:
        raise CheckpointError("it has no classifier: use a fine-tuned file, or --reset-head for a random one")
    if wanted not in (None, held):
        raise CheckpointError(
            f"its head has {held} classes, not {wanted}: use --reset-head for a new, random one"
        )
    return held


def _check_heads(tensors: Mapping[str, np.ndarray], changes: Mapping[str, Any]) -> None:
    """Nothing but the file says how large the heads are: believe it only if it holds all of them."""
    width, hidden = changes["embed_dim"], changes["representation_size"]
    for head, inputs in (("head0", width), ("head", hidden or width), ("head_dist", width)):
        bias, weight = tensors.get(f"{head}.bias"), tensors.get(f"{head}.weight")
        if bias is not None and (weight is None or weight.shape != (inputs, bias.size)):
            shape = "missing" if weight is None else list(weight.shape)
            raise CheckpointError(f"{head}.weight is {shape}, not {[inputs, bias.size]}; get the original")


def _with_new_head(
    tensors: Mapping[str, np.ndarray], changes: Mapping[str, Any], classes: int
) -> dict[str, np.ndarray]:
    """The tensors with fresh last layers; a tanh layer before them stays."""
    rng = np.random.default_rng(_HEAD_SEED)
    width = changes["representation_size"] or changes["embed_dim"]
    tensors = dict(tensors)
    for head in ("head", "head_dist") if changes["distilled"] else ("head",):
        tensors[f"{head}.weight"] = rng.normal(0, _HEAD_STD, (width, classes)).astype(np.float32)
        tensors[f"{head}.bias"] = np.zeros(classes, np.float32)
    return tensors


def load_weights(model: nn.Layer, tensors: Mapping[str, np.ndarray]) -> None:
    """Copy `tensors` into the parameters of the same names, cast to the parameters' dtype.

    Raises CheckpointError that names what is missing, unexpected or mis-shaped; then nothing was loaded.
    """
    parameters = model.state_dict()
    problems = []
    missing = [name for name in parameters if name not in tensors]
    unexpected = [name for name in tensors if name not in parameters]
    mis_shaped = [
        f"{name} (file {list(tensors[name].shape)}, model {list(parameters[name].shape)})"
        for name in parameters
        if name in tensors and list(tensors[name].shape) != list(parameters[name].shape)
    ]
    for what, names in (("missing", missing), ("unexpected", unexpected), ("mis-shaped", mis_shaped)):
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            problems.append(f"{len(names)} {what}: {', '.join(names[:_SHOWN])}{more}")
    if problems:
        raise CheckpointError(f"the weights do not fit the model; {'; '.join(problems)}")
    for name, parameter in parameters.items():
        value = paddle.to_tensor(np.ascontiguousarray(tensors[name]))
        parameter.set_value(value.astype(parameter.dtype))
