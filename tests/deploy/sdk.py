"""What the C++ programs are built against in tests: the runtimes inside the pip packages."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "deploy" / "cpp"


class NotHere(Exception):
    """Something that the machine would need; the message says what."""


def onnxruntime_dir(folder: Path) -> list[str]:
    """CMake's arguments for the onnxruntime package, its headers from Debian. Raises NotHere."""
    script = SOURCE / "onnxruntime_from_pip.py"
    done = subprocess.run(
        [sys.executable, str(script), str(folder)], capture_output=True, text=True, timeout=120
    )
    if done.returncode:
        raise NotHere(f"no ONNX Runtime to build against: {done.stderr.strip()}")
    return [f"-DONNXRUNTIME_DIR={folder}"]


def paddle_lib(folder: Path) -> list[str]:
    """CMake's arguments for a folder laid out as the SDK is, which leads to the pip package's library.

    That library is Python's extension module, so it wants Python's own library too. Raises NotHere.
    """
    package = Path(importlib.util.find_spec("paddle").origin).parent
    python = Path(sysconfig.get_config_var("LIBDIR")) / str(sysconfig.get_config_var("INSTSONAME"))
    if ".so" not in python.name or not python.is_file():
        raise NotHere("this Python comes without a libpython to link Paddle's pip package with")
    include, lib = folder / "paddle" / "include", folder / "paddle" / "lib"
    include.mkdir(parents=True)
    lib.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("paddle_inference_api.h"), include)
    libraries = [
        package / "base" / "libpaddle.so",
        *(package / "libs" / f"lib{name}.so" for name in ("phi", "phi_core", "common")),
        python,
    ]
    # To the linker, a text file of this form is a library.
    (lib / "libpaddle_inference.so").write_text(f"INPUT({' '.join(map(str, libraries))})\n")
    return [
        f"-DPADDLE_LIB={folder}",
        "-DCMAKE_EXE_LINKER_FLAGS=-Wl,--allow-shlib-undefined",
        f"-DCMAKE_BUILD_RPATH={package / 'base'};{package / 'libs'};{python.parent}",
    ]


def build(folder: Path, *arguments: str) -> Path:
    """Configure and build in `folder`/build, which is returned. Raises NotHere: no compiler or header."""
    for tool in ("cmake", "c++"):
        if shutil.which(tool) is None:
            raise NotHere(f"no {tool} to build deploy/cpp with")
    out = folder / "build"
    configure = ["cmake", "-S", str(SOURCE), "-B", str(out), *arguments]
    # Built in a third less time than with -O3.
    configure += ["-DCMAKE_CXX_FLAGS=-Werror", "-DCMAKE_CXX_FLAGS_RELEASE=-O1"]
    if shutil.which("ninja"):
        configure += ["-G", "Ninja"]
    done = subprocess.run(configure, capture_output=True, text=True, timeout=120)
    if done.returncode and "apt-get install" in done.stderr:
        raise NotHere(next(line.strip() for line in done.stderr.splitlines() if "apt-get" in line))
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        ["cmake", "--build", str(out), "--parallel", "2"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out
