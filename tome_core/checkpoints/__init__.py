"""Weights files to named numpy arrays, safely: nothing in a file is ever run.

`read_checkpoint` reads `.pdparams`, `.pth` (both layouts), `.safetensors` and `.npz` with numpy alone.
"""

from tome_core.checkpoints.reader import Checkpoint, read_checkpoint

__all__ = ["Checkpoint", "read_checkpoint"]
