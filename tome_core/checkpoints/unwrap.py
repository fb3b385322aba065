"""From the object in a file to its state dict: wrappers taken off, names checked."""

from tome_core.checkpoints.arrays import Tensor
from tome_core.checkpoints.limits import MAX_KEY, Refused, shown, unsafe
from tome_core.checkpoints.paddle_files import NAMES, PARTS, join_parts, tensor_of

# In order of preference: plain weights before their moving average.
WRAPPERS = ("state_dict", "model", "model_ema", "ema_state_dict")
_DEPTH = 4
_PREFIX = "module."


def _keys(value: dict) -> str:
    names = [shown(key, 40) if type(key) is str else type(key).__name__ for key in list(value)[:6]]
    return ", ".join(names) + (", ..." if len(value) > 6 else "") if names else "nothing"


def _holds_tensors(value: dict) -> bool:
    """Whether a dict is a state dict or wraps one (looking no deeper)."""
    return any(w in value for w in WRAPPERS) or any(tensor_of(v) is not None for v in value.values())


def _checked_name(name: object) -> str:
    if type(name) is not str or not name:
        raise unsafe("a tensor has no proper name")
    if len(name.encode("utf-8")) > MAX_KEY or not name.isprintable():
        raise unsafe(f"a tensor has an overlong or unprintable name, {shown(name, 40)}")
    return name


def state_dict(value: object) -> dict[str, Tensor]:
    """The named tensors of the object in a weights file.

    Takes off `WRAPPERS` (nested up to four deep) and the `module.` of data-parallel training where every name
    has it, puts Paddle's split arrays together, and leaves out everything that is not a tensor.

    Raises:
        Refused: not a dict, no tensors in it, or names that are no names.
    """
    for _ in range(_DEPTH):
        inner = [value[w] for w in WRAPPERS if w in value] if type(value) is dict else []
        inner = [d for d in inner if type(d) is dict and _holds_tensors(d)]
        if not inner:
            break
        value = inner[0]
    if type(value) is not dict:
        raise Refused("it holds no state dict; save the model's state_dict()")
    tensors = {}
    for key, item in value.items():
        tensor = None if key in (NAMES, PARTS) else tensor_of(item)
        if tensor is not None:
            tensors[_checked_name(key)] = tensor
    if PARTS in value:
        tensors = join_parts(tensors, value[PARTS])
    if not tensors:
        raise Refused(f"it holds no tensors, only {_keys(value)}; save the model's state_dict()")
    while all(name.startswith(_PREFIX) for name in tensors):
        tensors = {_checked_name(name.removeprefix(_PREFIX)): tensor for name, tensor in tensors.items()}
    return tensors
