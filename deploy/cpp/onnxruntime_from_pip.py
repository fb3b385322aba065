"""Make an ONNXRUNTIME_DIR, FOLDER/lib and FOLDER/include, from the onnxruntime package and Debian's headers.

    python onnxruntime_from_pip.py FOLDER

The pip package has the library and no headers. Debian has the headers and an older library, which this leaves
alone: the headers' package is unpacked, not installed, and that needs no root. A newer library runs what was
built with older headers. For machines that reach pip and apt only; ONNX Runtime's release archives have both.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_RELEASE = "trixie"  # Debian's first to have it; the compiler's own release may be older, headers do not mind
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
_PACKAGE = "libonnxruntime-dev"


def link_library(folder: Path) -> None:
    """FOLDER/libonnxruntime.so and .so.1, links to the pip package's library."""
    found = importlib.util.find_spec("onnxruntime")
    if found is None or found.origin is None:
        sys.exit("error: no onnxruntime package here: pip install onnxruntime")
    libraries = sorted((Path(found.origin).parent / "capi").glob("libonnxruntime.so.*"))
    if not libraries:
        sys.exit("error: this onnxruntime package has no libonnxruntime.so; 1.18 or later for Linux has")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(libraries[-1].resolve())


def unpack_headers(folder: Path) -> None:
    """FOLDER/onnxruntime_cxx_api.h and the others, from the Debian mirror that this machine is set up for."""
    wanted = "$(REPO_URI) $(ORIGIN) $(LABEL)"
    lines = _run("apt-get", "indextargets", "--format", wanted, "Created-By: Packages").splitlines()
    mirrors = [line.split()[0] for line in lines if line.split()[1:] == ["Debian", "Debian"]]
    if not mirrors:
        sys.exit(
            "error: apt knows no Debian mirror: apt-get update, or unpack ONNX Runtime's release archive"
        )
    with tempfile.TemporaryDirectory() as scratch:
        # A state of its own: what is installed here, and from where, stays as it is.
        apt = Path(scratch)
        (apt / "sources.list").write_text(f"deb [signed-by={_KEYS}] {mirrors[0]} {_RELEASE} main\n")
        (apt / "lists" / "partial").mkdir(parents=True)
        options = {"Etc::SourceList": "sources.list", "State::Lists": "lists", "Cache": "."}
        own = [part for key, name in options.items() for part in ("-o", f"Dir::{key}={apt / name}")]
        own += ["-o", "Dir::Etc::SourceParts=-", "-o", "APT::Sandbox::User="]
        _run("apt-get", *own, "update", cwd=apt)
        _run("apt-get", *own, "download", _PACKAGE, cwd=apt)
        _run("dpkg-deb", "-x", str(next(apt.glob("*.deb"))), str(apt / "unpacked"))
        shutil.copytree(apt / "unpacked" / "usr" / "include" / "onnxruntime", folder, dirs_exist_ok=True)


def _run(*command: str, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        sys.exit(f"error: no {command[0]} here: this needs Debian or a relative of it")
    except subprocess.CalledProcessError as error:
        said = (error.stderr.strip() or "it says no more").splitlines()[-1]
        sys.exit(f"error: {command[0]} failed ({said})")
    return done.stdout


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python onnxruntime_from_pip.py FOLDER")
    link_library(Path(sys.argv[1]) / "lib")
    unpack_headers(Path(sys.argv[1]) / "include")
