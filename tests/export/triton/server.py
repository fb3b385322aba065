"""A real tritonserver, from the wheel of nvidia-pytriton 0.7.0 in an environment of its own.

    python3 -m venv DIR
    DIR/bin/pip install nvidia-pytriton==0.7.0 "numpy<2" onnxruntime pillow

`TOME_TRITONSERVER=DIR` tells the tests. It is old and comes with the Python backend only, so it listens on
loopback, and `onnxruntime_backend.py` stands in for the backend of the tensor model.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

HERE = Path(__file__).parent
_WHERE = """
import json, pytriton, sys, sysconfig
root = pytriton.__path__[0]
print(json.dumps([root, sysconfig.get_config_var("LIBDIR"), "%d.%d" % sys.version_info[:2]]))
"""


class Server:
    """`with Server(environment, repository, folder) as server:` listens on ports `.http` and `.grpc`."""

    def __init__(self, environment: Path, repository: Path, folder: Path):
        self.python = environment / "bin" / "python"
        self.repository, self.folder = repository, folder
        self.http, self.grpc = _free_ports(2)
        self._environment = environment

    def __enter__(self):
        said = subprocess.run(
            [self.python, "-c", _WHERE], capture_output=True, text=True, check=True, timeout=60
        )
        root, libraries, version = json.loads(said.stdout)
        server = Path(root) / "tritonserver"
        backends = self.folder / "backends"
        shutil.copytree(server / "backends", backends)
        stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
        shutil.copy(stub, backends / "python")
        (backends / "onnxruntime").mkdir()
        shutil.copy(HERE / "onnxruntime_backend.py", backends / "onnxruntime" / "model.py")
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment["PATH"] = f"{self._environment / 'bin'}{os.pathsep}{environment['PATH']}"
        environment["LD_LIBRARY_PATH"] = f"{Path(root).parent / 'nvidia_pytriton.libs'}:{libraries}"
        arguments = {
            "model-repository": self.repository,
            "backend-directory": backends,
            "http-address": "127.0.0.1",
            "http-port": self.http,
            "grpc-address": "127.0.0.1",
            "grpc-port": self.grpc,
            "allow-metrics": "false",
            "strict-readiness": "true",
            "exit-on-error": "true",
        }
        self._log = open(self.folder / "log", "w+")
        self._process = subprocess.Popen(
            [server / "bin" / "tritonserver", *(f"--{key}={value}" for key, value in arguments.items())],
            env=environment,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # its children, a process for each instance, go with it
        )
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception):
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._log.close()

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def _wait(self):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self._process.poll() is None, self.log()[-5000:]
            try:
                with urlopen(f"http://127.0.0.1:{self.http}/v2/health/ready", timeout=5) as answer:
                    if answer.status == 200:
                        return
            except (URLError, OSError):
                time.sleep(0.1)
        raise AssertionError(self.log()[-5000:])


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
