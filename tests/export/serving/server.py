"""`tome-export serve` as a process, and the ways to ask it that no well-behaved client has."""

import os
import signal
import socket
import subprocess
import sysconfig
import time
import urllib.error
import urllib.request
from pathlib import Path

from benchmarks.serving.server import free_ports

COMMAND = Path(sysconfig.get_path("scripts")) / "tome-export"


class Server:
    """`with Server(bundle, folder, "--max-batch", 4) as server:` is ready; `.http` and `.grpc` are ports."""

    def __init__(self, bundle, folder: Path, *options):
        self.http, self.grpc = free_ports(2)
        self._log = folder / "said"
        ports = ("--port", self.http, "--grpc-port", self.grpc)
        self._command = [COMMAND, "serve", str(bundle.path), *map(str, (*ports, *options))]

    def __enter__(self):
        with open(self._log, "w") as log:
            self.process = subprocess.Popen(
                self._command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        deadline = time.monotonic() + 90
        while "Ctrl-C stops it" not in self.said():
            assert self.process.poll() is None and time.monotonic() < deadline, self.said()
            time.sleep(0.1)
        return self

    def __exit__(self, *exception):
        if self.process.poll() is None:
            self.stop()

    def said(self) -> str:
        return self._log.read_text()

    def stop(self, number=signal.SIGTERM) -> int:
        """Send the signal; the exit status."""
        self.process.send_signal(number)
        try:
            return self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise AssertionError(f"the server did not stop: {self.said()}") from None

    def ask(self, path, body=None, headers=None, method=None) -> tuple[int, bytes, dict]:
        """Status, body and headers, whatever the status."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http}{path}", data=body, headers=headers or {}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read(), dict(error.headers)

    def send(self, content: bytes, wait: float = 10) -> bytes:
        """Bytes to the port of HTTP, as they are, and what comes back until the connection closes."""
        with socket.create_connection(("127.0.0.1", self.http), timeout=wait) as connection:
            connection.sendall(content)
            found = b""
            while part := connection.recv(65536):
                found += part
            return found

    def processes(self) -> dict[int, str]:
        """The server's processes, all that descend from it: number and name."""
        parents, names = {}, {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                stat = (path / "stat").read_text(errors="replace")
                names[int(path.name)] = (path / "cmdline").read_text(errors="replace")
            except OSError:
                continue
            parents[int(path.name)] = int(stat.rpartition(")")[2].split()[1])
        found = {self.process.pid}
        while more := {number for number, parent in parents.items() if parent in found} - found:
            found |= more
        return {number: names[number] for number in found if number in names}

    def listening(self, port: int) -> set[str]:
        """Addresses on which anybody listens at this port, as the kernel writes them."""
        found = set()
        for path in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
            for line in path.read_text().splitlines()[1:]:
                address, state = line.split()[1], line.split()[3]
                if state == "0A" and int(address.partition(":")[2], 16) == port:
                    found.add(address.partition(":")[0])
        return found

    def replicas(self) -> list[int]:
        return [number for number, name in self.processes().items() if name.startswith("ray::ServeReplica")]
