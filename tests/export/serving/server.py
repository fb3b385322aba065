"""`tome-export serve` as a process, and the ways to ask it that no well-behaved client has."""

import os
import re
import signal
import socket
import subprocess
import sysconfig
import time
import urllib.error
import urllib.request
from pathlib import Path

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
        """The server's processes, by number: all that descend from it."""
        listed = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True
        ).stdout
        rows = [re.split(r"\s+", line.strip(), maxsplit=2) for line in listed.splitlines()]
        found, parents = {}, {self.process.pid}
        while parents:
            found |= {int(row[0]): row[2] for row in rows if int(row[1]) in parents or int(row[0]) in parents}
            parents = {int(row[0]) for row in rows if int(row[1]) in parents}
        return found

    def replicas(self) -> list[int]:
        return [number for number, name in self.processes().items() if name.startswith("ray::ServeReplica")]


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
