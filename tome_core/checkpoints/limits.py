"""What a weights file may ask for. Every reader checks against these before it takes memory.

Together they keep the peak below twice the file plus 200 MB: arrays take at most `array_budget`, the objects
of a pickle at most about 100 MB (`MAX_OPCODES` of them), and data is copied `CHUNK` bytes at a time.
"""

MIB = 1 << 20
MAX_FILE = 64 << 30  # bytes; no vision transformer comes near
MAX_KEY = 512  # bytes of UTF-8 in a tensor's name; longer text is never decoded
MAX_RANK = 32  # dimensions of one array, numpy 1's own limit
MAX_ELEMENTS = 1 << 48  # product of the non-zero dimensions, so that numpy's own arithmetic cannot overflow
MAX_OPCODES = 1_000_000  # per pickle; a ViT-H with its optimizer needs about 100,000
MAX_SHORT_TEXT = 16 * MIB  # all names and short strings of one pickle together
MAX_INTEGER = 16  # bytes of one pickled integer; torch's magic number has 10
MAX_LINE = 256  # bytes of a module or class name
MAX_PICKLE_MEMBER = 16 * MIB  # data.pkl in a torch zip: structure only, no weights
MAX_DIRECTORY = 4 * MIB  # central directory of a zip
MAX_JSON = 2 * MIB  # header of a safetensors file
MAX_NPY_HEADER = 10_000  # bytes, numpy's own limit
CHUNK = 1 * MIB

AGAIN = "download or copy it again"


class Refused(Exception):
    """A file that cannot be read safely. The message is one line without the file's name."""


def unsafe(what: str) -> Refused:
    """The error for a file that asks for more than weights need."""
    return Refused(
        f"refused: {what}; only weights are read: re-save them alone (a state_dict, or .safetensors)"
    )


def damaged(what: str) -> Refused:
    """The error for a file that contradicts itself."""
    return Refused(f"{what}; {AGAIN}")


def array_budget(file_size: int) -> int:
    """Bytes that the arrays of a file of `file_size` bytes may take; bfloat16 doubles on widening."""
    return 2 * file_size + 64 * MIB


def shown(text: object, limit: int = 120) -> str:
    """`text` fit for a one-line message: printable, no line breaks, at most `limit` characters."""
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text)[: limit + 1])
    return line if len(line) <= limit else line[: limit - 3] + "..."
