"""From the tensors of somebody else's file to the keys, axes and options of our models.

The source layout is recognised by keys and shapes. timm, PASSL, PaddleClas, DeiT and MAE share our key names
and differ in the order of Linear weights, in heads, and in options that follow from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tome_core.checkpoints.augreg import from_augreg
from tome_core.checkpoints.limits import shown
from tome_core.checkpoints.names import check_known, refuse_foreign, split_decoder, torchvision_to_ours
from tome_core.checkpoints.order import OF_CONTAINER, PADDLE, TORCH, linear_order, paddle_order
from tome_core.checkpoints.origins import preprocess_of
from tome_core.checkpoints.structure import check_arrays, check_structure, is_odd_small, model_options
from tome_core.errors import CheckpointError

# Layout: the order of its Linear weights, or None where the name stands for torch's and Paddle's files both.
_ORDERS = {
    "timm": TORCH,
    "passl": PADDLE,
    "paddleclas": PADDLE,
    "deit": None,
    "deit-distilled": None,
    "mae": None,
    "torchvision": TORCH,
    "swag": TORCH,
    "augreg-npz": PADDLE,
}
LAYOUTS = tuple(_ORDERS)
_OWN_KEYS = {"torchvision", "swag", "augreg-npz"}


@dataclass(frozen=True, eq=False)
class Converted:
    """Weights for `VisionTransformer(get_config(name, **changes))`.

    layout: one of `LAYOUTS`.
    tensors: float32 under our keys, Linear weights [in, out].
    changes: the fields of `ViTConfig` that follow from the file. `num_classes` is absent if it has no head;
        `num_heads` is present only where the file tells.
    preprocess: name of the pre-processing preset (`tome_export.preprocess.PRESETS`) of its origin.
    notes: for the user, one line each.
    """

    layout: str
    tensors: dict[str, np.ndarray]
    changes: dict[str, Any]
    preprocess: str
    notes: tuple[str, ...] = field(default=())


def convert(
    tensors: Mapping[str, np.ndarray],
    layout: str | None = None,
    *,
    format: str | None = None,
    family: str | None = None,
) -> Converted:
    """Recognise the layout of `tensors` and turn them into weights for our models.

    Args:
        tensors: as `read_checkpoint` gives them.
        layout: one of `LAYOUTS`, if the recognition is to be overruled.
        format: `Checkpoint.format`; a torch or Paddle container must agree with the shapes.
        family: `ViTConfig.family` of the model wanted. timm, PASSL and PaddleClas name ViT and DeiT alike, so
            only this tells which pre-processing belongs to the file.

    Raises:
        CheckpointError: unknown layout, a layout that does not fit, an architecture that our models cannot
            compute, or weights in both orders. One line, naming what was seen.
    """
    if layout is not None and layout not in _ORDERS:
        raise CheckpointError(f"unknown layout {layout!r}; choose one of {', '.join(LAYOUTS)}")
    check_arrays(tensors)
    refuse_foreign(tensors)
    seen = _keys_of(tensors)
    if layout is not None and seen != (layout if layout in _OWN_KEYS else "timm"):
        raise CheckpointError(f"layout {layout} does not fit: its keys are {seen}'s; leave the layout out")

    heads, decoder = None, False
    if seen == "augreg-npz":
        ours, heads = from_augreg(tensors)
    else:
        encoder, decoder = split_decoder(tensors)
        ours = torchvision_to_ours(encoder)
        if seen == "swag" and "pos_embed" in ours and ours["pos_embed"].ndim == 3:
            ours["pos_embed"] = ours["pos_embed"].transpose(1, 0, 2)  # from [tokens, 1, channels]
    check_known(ours)
    check_structure(ours)
    order = linear_order(ours)
    found = layout or _recognise(ours, order, decoder, seen)
    _check_order(found, order, format, overruled=layout is not None)
    _check_traits(found, ours)

    changes = model_options(ours, paddle_class=order == PADDLE and seen != "augreg-npz")
    if heads is not None:
        changes["num_heads"] = heads
    if seen == "timm" and is_odd_small(changes):
        changes |= {"num_heads": 8, "qk_scale": 768**-0.5, "epsilon": 1e-5}
        found = "paddleclas" if order == PADDLE and layout is None else found
    preprocess, notes = preprocess_of(found, family, changes, asked=layout is not None)
    return Converted(
        layout=found,
        tensors=_float32(paddle_order(ours, order)),
        changes=changes,
        preprocess=preprocess,
        notes=(*_notes(ours, found, layout, decoder), *notes),
    )


def _keys_of(tensors: Mapping[str, np.ndarray]) -> str:
    """ "torchvision", "swag", "augreg-npz", or "timm" for the keys that most share."""
    if "embedding/kernel" in tensors or any(name.startswith("Transformer/") for name in tensors):
        return "augreg-npz"
    if any(name.startswith("encoder.layers.encoder_layer_") for name in tensors):
        return "torchvision"
    if any(name.startswith("encoder.layers.layer_") for name in tensors):
        return "swag"
    if any(name.startswith("blocks.") for name in tensors):
        return "timm"
    listed = ", ".join(shown(name, 40) for name in list(tensors)[:4])
    raise CheckpointError(
        f"its keys ({listed}, ...) are none of a known layout ({', '.join(LAYOUTS)}); "
        "give the weights of a ViT, DeiT or MAE classifier"
    )


def _recognise(ours: Mapping[str, np.ndarray], order: str, decoder: bool, seen: str) -> str:
    if seen in _OWN_KEYS:
        return seen
    if "dist_token" in ours:
        return "deit-distilled"
    if decoder or "fc_norm.weight" in ours:
        return "mae"
    return "timm" if order == TORCH else "passl"


def _check_order(layout: str, order: str, format: str | None, overruled: bool) -> None:
    wanted = _ORDERS[layout]
    if wanted is not None and order != wanted:
        raise CheckpointError(
            f"layout {layout} keeps Linear weights {wanted}, this file {order}; try another"
        )
    container = OF_CONTAINER.get(format or "")
    if container is not None and container != order and not (overruled and wanted):
        raise CheckpointError(
            f"its Linear weights are {order}, yet {format} files keep them {container}, so its square "
            "ones are in doubt; use the original file, or pass the layout it was saved from"
        )


def _check_traits(layout: str, ours: Mapping[str, np.ndarray]) -> None:
    """Refuse a layout that was asked for and cannot hold these keys."""
    distilled = "dist_token" in ours
    wrong = {
        "deit": [k for k in ("dist_token", "fc_norm.weight", "head0.weight") if k in ours],
        "deit-distilled": [] if distilled else ["no dist_token"],
        "mae": [k for k in ("dist_token", "head0.weight") if k in ours],
        "paddleclas": [k for k in ("head0.weight", "fc_norm.weight") if k in ours],
        "swag": [k for k in ("head0.weight",) if k in ours],
    }.get(layout)
    if wrong:
        raise CheckpointError(f"layout {layout} does not fit: the file has {', '.join(wrong)}; try another")
    if "norm.weight" in ours and "fc_norm.weight" in ours:
        raise CheckpointError("its model has both norm and fc_norm; use a plain ViT or MAE file")
    if distilled and any(k in ours for k in ("fc_norm.weight", "head0.weight")):
        raise CheckpointError("it has a distillation token and a ViT's or MAE's head; use a plain file")


def _float32(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    found = {}
    for name, tensor in tensors.items():
        try:
            with np.errstate(over="raise"):
                found[name] = np.ascontiguousarray(tensor, dtype=np.float32)
        except FloatingPointError:
            raise CheckpointError(f"{shown(name, 80)} holds numbers too large for float32") from None
    return found


def _notes(ours: Mapping[str, np.ndarray], found: str, asked: str | None, decoder: bool) -> list[str]:
    notes = []
    kinds = sorted({tensor.dtype.name for tensor in ours.values()} - {"float32"})
    if kinds:
        notes.append(f"the file keeps {' and '.join(kinds)}; the model computes in float32")
    if found == "passl" and asked is None and "head0.weight" not in ours:
        notes.append("PASSL and PaddleClas name these weights alike; they mean the same in both")
    if decoder:
        notes.append("this is an MAE pre-training file: its decoder is left out, and it has no classifier")
    return notes
