"""The shape of a Vision Transformer, and the named shapes this project ships."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace

from tome_core.errors import ModelError


@dataclass(frozen=True)
class ViTConfig:
    """All that is needed to build a model. Sizes are in pixels; the other numbers are counts."""

    name: str
    family: str  # "vit", "deit" or "mae": who trained it, hence head, pre-processing and defaults
    patch_size: int
    embed_dim: int
    depth: int
    num_heads: int
    image_size: int = 224
    num_classes: int = 1000
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    qk_scale: float | None = None  # of queries times keys; None: one over the root of the head's width
    epsilon: float = 1e-6
    distilled: bool = False  # a distillation token and a second head (DeiT)
    global_pool: bool = False  # mean of the patch tokens instead of the class token (MAE)
    representation_size: int | None = None  # width of `head0`, a tanh layer before the head

    def __post_init__(self) -> None:
        for field in ("patch_size", "embed_dim", "depth", "num_heads", "image_size", "num_classes"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ModelError(f"{field} must be a positive whole number, not {value!r}")
        if self.image_size % self.patch_size:
            near = max(1, round(self.image_size / self.patch_size)) * self.patch_size
            raise ModelError(
                f"image size {self.image_size} is not a multiple of the patch size {self.patch_size}; "
                f"try {near}"
            )
        if self.embed_dim % self.num_heads:
            raise ModelError(f"{self.num_heads} heads do not divide the embedding width {self.embed_dim}")

    @property
    def patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2

    @property
    def protected(self) -> int:
        """Special tokens: the class token and, if there is one, the distillation token."""
        return 2 if self.distilled else 1

    @property
    def tokens(self) -> int:
        return self.patches + self.protected

    @property
    def hidden_dim(self) -> int:
        return int(self.embed_dim * self.mlp_ratio)


_TI, _S, _B, _L, _H = (192, 12, 3), (384, 12, 6), (768, 12, 12), (1024, 24, 16), (1280, 32, 16)


def _named(family: str, patch_size: int, size: tuple[int, int, int], name: str, **rest) -> ViTConfig:
    return ViTConfig(name, family, patch_size, *size, **rest)


_CONFIGS = {
    config.name: config
    for config in (
        _named("vit", 16, _TI, "vit_ti16"),
        _named("vit", 16, _S, "vit_s16"),
        _named("vit", 16, _B, "vit_b16"),
        _named("vit", 32, _B, "vit_b32"),
        _named("vit", 16, _L, "vit_l16"),
        _named("vit", 32, _L, "vit_l32"),
        _named("vit", 14, _H, "vit_h14"),
        # PaddleClas's ViT_small_patch16_224, which shares nothing but the name with everybody else's ViT-S.
        _named(
            "vit",
            16,
            (768, 8, 8),
            "paddleclas_vit_s16",
            mlp_ratio=3.0,
            qkv_bias=False,
            qk_scale=768**-0.5,
            epsilon=1e-5,
        ),
        _named("deit", 16, _TI, "deit_ti16"),
        _named("deit", 16, _S, "deit_s16"),
        _named("deit", 16, _B, "deit_b16"),
        _named("deit", 16, _TI, "deit_ti16_distilled", distilled=True),
        _named("deit", 16, _S, "deit_s16_distilled", distilled=True),
        _named("deit", 16, _B, "deit_b16_distilled", distilled=True),
        _named("mae", 16, _B, "mae_vit_b16", global_pool=True),
        _named("mae", 16, _L, "mae_vit_l16", global_pool=True),
        _named("mae", 14, _H, "mae_vit_h14", global_pool=True),
    )
}


def model_names() -> tuple[str, ...]:
    """The names `get_config` and `create_model` know."""
    return tuple(_CONFIGS)


def get_config(name: str, **changes) -> ViTConfig:
    """The named configuration, with fields replaced by `changes`.

    Raises ModelError for an unknown name (naming the nearest) or values that do not fit together.
    """
    if name not in _CONFIGS:
        near = difflib.get_close_matches(name.lower(), _CONFIGS, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else "run `tome-export models` for the list"
        raise ModelError(f"unknown model {name!r}; {hint}")
    return replace(_CONFIGS[name], **changes)
