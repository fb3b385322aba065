"""The models this project defines itself, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tome_core.zoo.config import ViTConfig, get_config, model_names

if TYPE_CHECKING:
    from tome_core.zoo.vit import VisionTransformer

__all__ = ["ViTConfig", "create_model", "get_config", "model_names"]


def create_model(name: str, **changes) -> VisionTransformer:
    """Build a named model with freshly initialised weights, in eval mode.

    `changes` replace fields of its `ViTConfig`, such as `image_size` or `num_classes`.
    Raises ModelError for an unknown name or values that do not fit together.
    """
    from tome_core.zoo.vit import VisionTransformer  # imports Paddle; the names above do not

    model = VisionTransformer(get_config(name, **changes))
    model.eval()
    return model
