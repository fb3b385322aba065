"""One file from a URL to a folder: bounded in size and time, whole or not at all."""

from __future__ import annotations

import base64
import hashlib
import http.client
import ipaddress
import os
import string
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from tome_core.checkpoints.limits import CHUNK, MAX_FILE, Refused, shown
from tome_export.errors import RequestError

_MIN_RATE = 1000  # bytes per second on average: slower than that is a server that keeps us waiting on purpose
_PAGE = "this is a web page, not the weights; give the address of the file itself"


def public(url: str) -> str:
    """The URL without what may be secret in it: user, password, query and fragment."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def check_url(url: str, loopback: bool = True) -> None:
    """Refuse all but https, and http to this machine if `loopback`. Raises RequestError."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise RequestError(f"the address of the weights is no valid URL ({error})") from None
    if parts.scheme not in ("http", "https") or not host:
        raise RequestError(f"{public(url)}: weights are read from a file, https://... or hf:owner/name")
    if parts.scheme == "http" and not (loopback and is_loopback(host)):
        raise RequestError(f"{public(url)}: http:// can be changed on its way; use https://")


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def download(url: str, folder: Path, prefix: str, name: str, sha256: str | None, timeout: float) -> Path:
    """Download to `folder`/`prefix`SHA256-`name`, which appears when it is whole and has the hash asked.

    timeout: seconds that the server may be silent for. Raises RequestError; then nothing stays in `folder`.
    """
    part = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, part = tempfile.mkstemp(prefix=prefix, suffix=".part", dir=folder)
        with open(descriptor, "wb") as file, _open(url, timeout) as response:
            digest = _receive(response, file, timeout)
        if sha256 is not None:
            check_hash(public(url), digest, sha256)
        whole = folder / f"{prefix}{digest}-{name}"
        os.replace(part, whole)
        return whole
    except Refused as error:
        raise RequestError(f"{public(url)}: {error}") from None
    except urllib.error.HTTPError as error:
        error.close()
        what = f"{error.code} {http.client.responses.get(error.code, '')}".strip()
        raise RequestError(f"{public(url)}: the server answers {what}; check the address") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            reason = f"the server was silent for {timeout:g} s"
        reason = shown(reason) if str(reason) else type(error).__name__
        raise RequestError(f"{public(url)}: cannot be downloaded ({reason})") from None
    finally:
        if part is not None:
            Path(part).unlink(missing_ok=True)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect to https only; from this machine also to this machine."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        try:
            check_url(newurl, loopback=is_loopback(urlsplit(req.full_url).hostname or ""))
        except RequestError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, timeout: float):
    parts = urlsplit(url)
    netloc = parts.netloc.rpartition("@")[2]
    bare = urlunsplit((parts.scheme, netloc, parts.path, parts.query, ""))
    request = urllib.request.Request(
        quote(bare, safe=string.punctuation), headers={"User-Agent": "tome-export"}
    )
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        # Unredirected: another server must not see it.
        request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(pair.encode()).decode())
    proxies = {} if is_loopback(parts.hostname or "") else None
    opener = urllib.request.build_opener(_Redirects, urllib.request.ProxyHandler(proxies))
    return opener.open(request, timeout=timeout)


def _receive(response: http.client.HTTPResponse, file, timeout: float) -> str:
    """Copy the body; returns its SHA-256. Raises Refused."""
    length, received, digest, start = response.length, 0, hashlib.sha256(), time.monotonic()
    if response.headers.get_content_type() == "text/html":
        raise Refused(_PAGE)
    while True:
        if max(received, length or 0) > MAX_FILE:
            raise Refused(f"it is larger than {MAX_FILE >> 30} GiB")
        block = response.read1(CHUNK)
        if not block:
            break
        # The NUL tells a .safetensors whose length of header happens to begin with "<".
        if not received and block.lstrip().startswith(b"<") and b"\0" not in block[:8]:
            raise Refused(_PAGE)
        received += len(block)
        digest.update(block)
        file.write(block)
        seconds = time.monotonic() - start
        if seconds > timeout and received < _MIN_RATE * seconds:
            raise Refused(f"the server sent {received} bytes in {seconds:.0f} s, which is too slow")
    if length is not None and received != length:
        raise Refused(f"the connection broke after {received} of {length} bytes; try again")
    if not received:
        raise Refused("the server sent an empty file")
    return digest.hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def check_hash(what: str, found: str, wanted: str) -> None:
    """Raises RequestError with both, unless they are the same."""
    if found != wanted:
        raise RequestError(f"{what}: its sha256 is {found}, not {wanted} as asked; it is another file")
