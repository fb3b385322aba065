"""The export half of the error tree; the root and its picture are in `tome_core.errors`."""

from tome_core.errors import RequestError, TomeError


class BundleError(RequestError):
    """A bundle folder that is missing, damaged, in the way, or not a bundle."""


class MissingExtraError(RequestError):
    """An optional package is not installed; the message names the extra that brings it."""


class ImageError(RequestError):
    """An image file that cannot be read."""


class TooLargeError(ImageError):
    """An image of more pixels than is safe, or than is allowed, to read."""


class ConversionError(TomeError):
    """Tracing, saving or converting the model failed."""


class ParityError(TomeError):
    """An artifact does not compute what the model computes."""


class AccuracyError(TomeError):
    """A model in reduced precision predicts something else too often."""


class WorkerError(TomeError):
    """A process that prepares pictures ended before its work was done."""


class GpuError(TomeError):
    """CUDA or TensorRT failed at something."""


class EvaluationError(TomeError):
    """An evaluation that could not measure anything."""


class BenchError(TomeError):
    """A benchmark that could not measure something."""


class ServingError(TomeError):
    """A server that did not start, or did not stop as it should."""
