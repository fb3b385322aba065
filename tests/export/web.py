"""A real HTTP server on this machine, with pages that a test hands it."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class Web(ThreadingHTTPServer):
    """`pages` maps a path (without query) to bytes or to a function of the request handler; `asked` lists the
    requests as (method, path with query, headers)."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages: dict[str, bytes | Callable] = {}
        self.asked = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """A client that hangs up is no news here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append((self.command, self.path, dict(self.headers)))
        page = self.server.pages.get(self.path.partition("?")[0])
        if page is None:
            self.answer(404, b"no such page")
        elif callable(page):
            page(self)
        else:
            self.answer(200, page)

    do_HEAD = do_GET

    def answer(self, status: int, body: bytes = b"", length: int | None = None, **headers: str):
        """Send a response, which may lie about its length. `content_type` names the header Content-Type."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@contextmanager
def serving() -> Iterator[Web]:
    """A server for the length of the block."""
    with Web() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def hub_pages(repo: str, files: dict[str, bytes], commit: str = "c" * 40, revisions=("main",)) -> dict:
    """Pages of a Hugging Face Hub with one public model repository."""

    def file_page(data):
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X_Repo_Commit": commit}
        return lambda handler: handler.answer(200, data, **headers)

    tree = [
        {"type": "file", "path": name, "oid": "0" * 40, "size": len(data)} for name, data in files.items()
    ]
    siblings = [{"rfilename": name} for name in files]
    listing = {"id": repo, "sha": commit, "private": False, "gated": False, "tags": [], "siblings": siblings}
    # Older versions of huggingface_hub list files by the model's page, newer ones by its tree.
    pages = {f"/api/models/{repo}": json.dumps(listing).encode()}
    for revision in (*revisions, commit):
        pages[f"/api/models/{repo}/revision/{revision}"] = pages[f"/api/models/{repo}"]
        pages[f"/api/models/{repo}/tree/{revision}"] = json.dumps(tree).encode()
        pages |= {f"/{repo}/resolve/{revision}/{name}": file_page(data) for name, data in files.items()}
    return pages


def refused(status: int, code: str) -> Callable:
    """A page on which the Hub says no, in its own words."""
    return lambda handler: handler.answer(status, b"{}", X_Error_Code=code, X_Error_Message=code)
