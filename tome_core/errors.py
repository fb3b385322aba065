"""The error tree. Every error this project raises on purpose descends from `TomeError`.

    TomeError                     exit 1: something failed
    ├── RequestError              exit 2: the request itself is wrong
    │   ├── ScheduleError         r, the list of r, or (r, inflection)
    │   ├── ModelError            unknown model name, bad image size, bad options
    │   ├── CheckpointError       a weights file that is missing, broken, unsafe, or of another model
    │   ├── PatchError            a model that Token Merging cannot be applied to faithfully
    │   └── (tome_export adds BundleError, MissingExtraError, ImageError, TooLargeError)
    └── (tome_export adds ConversionError, ParityError, AccuracyError, WorkerError, EvaluationError,
         BenchError, GpuError, ServingError)

Messages are one line: what is wrong, then what to do about it.
"""


class TomeError(Exception):
    """Base class. `exit_code` is what the command line exits with."""

    exit_code = 1


class RequestError(TomeError):
    """The request is wrong; nothing was attempted."""

    exit_code = 2


class ScheduleError(RequestError, ValueError):
    """A merging schedule that cannot be understood or followed."""


class ModelError(RequestError, ValueError):
    """A model name or model option that does not exist or does not fit."""


class CheckpointError(RequestError):
    """A weights file that cannot be read safely, or that belongs to another model."""


class PatchError(RequestError, TypeError):
    """A model that Token Merging cannot be applied to faithfully."""
