"""Weights from a URL, over real connections to a real server on this machine."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from tests.core.checkpoints.foreign import safetensors_file, torch_file
from tests.export.web import serving
from tome_export import download
from tome_export.errors import RequestError
from tome_export.fetch import cache_folder, check_address, fetch
from tome_export.request import ExportRequest

WEIGHTS = safetensors_file({"head.bias": np.arange(7, dtype="f4")})
PICKLE = torch_file({"head.bias": np.arange(7, dtype="f4")})


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def web():
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TOME_EXPORT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def kept():
    return sorted(cache_folder().iterdir()) if cache_folder().is_dir() else []


def refused(*words, **options):
    """The one line of the refusal, after which the cache is as it was."""
    before = kept()
    with pytest.raises(RequestError) as caught:
        fetch(*words, **options)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    assert kept() == before
    return message


def test_a_download_is_whole_recorded_and_not_repeated(web, cache):
    web.pages["/models/vit.safetensors"] = WEIGHTS
    url = f"{web.url}/models/vit.safetensors"
    fetched = fetch(url)
    assert fetched.path.read_bytes() == WEIGHTS and fetched.source == url
    assert fetched.path.name.endswith("vit.safetensors") and list(cache.iterdir()) == [fetched.path]
    assert fetch(url) == fetch(url, sha256(WEIGHTS).upper()) == fetched
    assert len(web.asked) == 1


def test_a_name_with_spaces_and_letters_of_other_scripts(web):
    web.pages["/%C3%BC/vi%20t.safetensors"] = WEIGHTS
    for path in ("ü/vi t.safetensors", "%C3%BC/vi%20t.safetensors"):
        assert fetch(f"{web.url}/{path}").path.read_bytes() == WEIGHTS


def test_an_npz(web, tmp_path):
    np.savez(tmp_path / "a.npz", kernel=np.ones(3, "f4"))
    web.pages["/a.npz"] = (tmp_path / "a.npz").read_bytes()
    assert fetch(f"{web.url}/a.npz").path.read_bytes() == web.pages["/a.npz"]


def test_credentials_reach_their_server_only(web):
    web.pages["/private.safetensors"] = lambda page: page.answer(302, Location=f"{other.url}/w.safetensors")
    with serving() as other:
        other.pages["/w.safetensors"] = WEIGHTS
        url = web.url.replace("//", "//ann:s%40cret@") + "/private.safetensors?token=hidden#part"
        assert fetch(url).source == f"{web.url}/private.safetensors"
        assert other.asked[0][2].keys().isdisjoint({"Authorization"})
    assert web.asked[0][1] == "/private.safetensors?token=hidden"
    assert web.asked[0][2]["Authorization"] == "Basic YW5uOnNAY3JldA=="  # ann:s@cret
    web.pages.clear()
    message = refused(url.replace("private", "gone"))
    assert "404" in message and not any(word in message for word in ("ann", "cret", "hidden"))


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.bin", "w.pdparams", "w.pd", "w.ckpt", "w", "w.npz.pkl"])
def test_a_pickle_needs_a_hash_and_nothing_is_asked_before(web, name):
    web.pages[f"/{name}"] = PICKLE
    assert "--weights-sha256" in refused(f"{web.url}/{name}")
    assert not web.asked
    assert fetch(f"{web.url}/{name}", sha256(PICKLE)).path.read_bytes() == PICKLE


@pytest.mark.parametrize("name", ["w.safetensors", "w.npz"])
def test_a_pickle_under_another_name_needs_one_too(web, name):
    web.pages[f"/{name}"] = PICKLE
    # torch's file is a zip, as an .npz is: the members tell them apart.
    assert "--weights-sha256" in refused(f"{web.url}/{name}")
    web.pages[f"/{name}"] = b"\x80\x02}q\x00."
    assert "--weights-sha256" in refused(f"{web.url}/{name}")
    web.pages[f"/{name}"] = PICKLE
    assert fetch(f"{web.url}/{name}", sha256(PICKLE)).path.read_bytes() == PICKLE


def test_another_file_than_the_one_asked_for(web, tmp_path):
    web.pages["/w.safetensors"] = WEIGHTS
    wanted = sha256(PICKLE)
    message = refused(f"{web.url}/w.safetensors", wanted)
    assert wanted in message and sha256(WEIGHTS) in message
    local = tmp_path / "w.safetensors"
    local.write_bytes(WEIGHTS)
    message = refused(local, wanted)
    assert wanted in message and sha256(WEIGHTS) in message


def test_a_local_file_stays_where_it_is(web, tmp_path):
    local = tmp_path / "w.pth"
    local.write_bytes(PICKLE)
    for given in (local, str(local)):
        for digest in (None, sha256(PICKLE)):
            fetched = fetch(given, digest)
            assert (fetched.path, fetched.source) == (local, "w.pth")
    assert fetch(tmp_path / "absent.pth", sha256(PICKLE)).path == tmp_path / "absent.pth"  # for the reader


def test_a_changed_cache_is_not_believed(web):
    web.pages["/w.safetensors"] = WEIGHTS
    url = f"{web.url}/w.safetensors"
    for digest in (None, sha256(WEIGHTS)):
        path = fetch(url, digest).path
        path.write_bytes(WEIGHTS[:-1] + b"\x01")
        assert fetch(url, digest).path.read_bytes() == WEIGHTS
    web.pages["/w.safetensors"] = newer = safetensors_file({"head.bias": np.ones(7, "f4")})
    assert fetch(url, sha256(newer)).path.read_bytes() == newer  # the old one does not stand in for it
    assert fetch(url, sha256(WEIGHTS)).path.read_bytes() == WEIGHTS


def test_redirects(web):
    web.pages |= {
        "/w.safetensors": WEIGHTS,
        "/moved.safetensors": lambda page: page.answer(302, Location="/w.safetensors"),
        "/plain.safetensors": lambda page: page.answer(302, Location="http://192.0.2.1/w.safetensors"),
        "/file.safetensors": lambda page: page.answer(302, Location="file:///etc/passwd"),
        "/loop.safetensors": lambda page: page.answer(302, Location="/loop.safetensors"),
    }
    moved = fetch(f"{web.url}/moved.safetensors")
    assert moved.path.read_bytes() == WEIGHTS and moved.source == f"{web.url}/moved.safetensors"
    moved.path.unlink()
    assert "http://192.0.2.1/w.safetensors: http:// can be changed" in refused(f"{web.url}/plain.safetensors")
    assert "302" in refused(f"{web.url}/file.safetensors")
    assert "302" in refused(f"{web.url}/loop.safetensors")


def test_an_encrypted_server_cannot_point_into_this_machine():
    with pytest.raises(RequestError, match="https"):
        download.check_url("http://127.0.0.1/w", loopback=False)


def test_the_servers_refusals(web):
    assert "404 Not Found" in refused(f"{web.url}/absent.safetensors")
    web.pages["/busy.safetensors"] = lambda page: page.answer(503, b"later")
    assert "503 Service Unavailable" in refused(f"{web.url}/busy.safetensors")
    web.pages["/odd.safetensors"] = lambda page: page.wfile.write(b"SSH-2.0-OpenSSH\r\n")
    assert "cannot be downloaded" in refused(f"{web.url}/odd.safetensors")


def test_web_pages_are_not_weights(web):
    page = b"\n<!DOCTYPE html><html><body>Sign in</body></html>"
    web.pages["/typed.safetensors"] = lambda page: page.answer(200, b"Sign in", content_type="text/html")
    web.pages["/plain.safetensors"] = page
    for name in ("typed", "plain"):
        assert "web page" in refused(f"{web.url}/{name}.safetensors")
        assert "web page" in refused(f"{web.url}/{name}.safetensors", sha256(WEIGHTS))
    # 60 is "<", and here the length of the header.
    odd = (60).to_bytes(8, "little") + b"{" + b" " * 58 + b"}"
    web.pages["/odd.safetensors"] = odd
    assert fetch(f"{web.url}/odd.safetensors").path.read_bytes() == odd


def test_broken_connections(web):
    def chunks(page):
        page.send_response(200)
        page.send_header("Transfer-Encoding", "chunked")
        page.end_headers()
        page.wfile.write(b"100\r\n" + WEIGHTS[:20])
        page.close_connection = True

    web.pages |= {
        "/short.safetensors": lambda page: page.answer(200, WEIGHTS, length=len(WEIGHTS) + 1),
        "/chunks.safetensors": chunks,
        "/empty.safetensors": b"",
    }
    message = refused(f"{web.url}/short.safetensors")
    assert f"{len(WEIGHTS)} of {len(WEIGHTS) + 1} bytes" in message
    assert "cannot be downloaded" in refused(f"{web.url}/chunks.safetensors")
    assert "empty" in refused(f"{web.url}/empty.safetensors")


def test_servers_that_keep_us_waiting(web):
    done = threading.Event()

    def silent(page):
        done.wait(10)

    def stalled(page):
        page.send_response(200)
        page.send_header("Content-Length", "1000000")
        page.end_headers()
        page.wfile.write(WEIGHTS)
        done.wait(10)

    def dripping(page):
        page.send_response(200)
        page.end_headers()
        while not done.wait(0.05):
            page.wfile.write(b"drop")

    web.pages |= {"/silent.npz": silent, "/stalled.npz": stalled, "/dripping.npz": dripping}
    try:
        for name, words in (("silent", "silent for 0.4 s"), ("stalled", "silent for"), ("dripping", "slow")):
            start = time.monotonic()
            assert words in refused(f"{web.url}/{name}.npz", timeout=0.4)
            assert time.monotonic() - start < 3
    finally:
        done.set()


def test_too_large_a_file_is_refused_by_what_it_says_and_by_what_it_sends(web, monkeypatch):
    web.pages["/claims.npz"] = lambda page: page.answer(200, b"PK", length=1 << 50)
    assert "larger than 64 GiB" in refused(f"{web.url}/claims.npz")

    def endless(page):
        page.send_response(200)
        page.end_headers()
        for _ in range(100):
            page.wfile.write(bytes(1 << 16))
        page.close_connection = True

    monkeypatch.setattr(download, "MAX_FILE", 1 << 20)
    web.pages["/endless.npz"] = endless
    assert "larger than" in refused(f"{web.url}/endless.npz")


def test_no_server_at_all():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, but nobody listens
        message = refused(f"http://127.0.0.1:{unused.getsockname()[1]}/w.safetensors")
    assert "cannot be downloaded" in message and "refused" in message.lower()


def test_a_cache_that_cannot_be_written(web, cache):
    cache.write_text("a file in the way")
    web.pages["/w.safetensors"] = WEIGHTS
    with pytest.raises(RequestError, match="cannot be downloaded"):
        fetch(f"{web.url}/w.safetensors")


def test_the_cache_has_the_platforms_place_unless_told(monkeypatch, tmp_path, cache):
    assert cache_folder() == cache
    monkeypatch.delenv("TOME_EXPORT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert cache_folder() == tmp_path / "tome-export"
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert cache_folder() == tmp_path / ".cache" / "tome-export"


@pytest.mark.parametrize(
    ("address", "digest", "words"),
    [
        ("http://example.com/w.safetensors", None, "use https://"),
        ("http://127.0.0.1.example.com/w.safetensors", None, "use https://"),
        ("http://localhost@example.com/w.safetensors", None, "use https://"),
        ("ftp://example.com/w.safetensors", None, "https://"),
        ("file:///etc/passwd", None, "https://"),
        ("https:///w.safetensors", None, "https://"),
        ("https://[::1/w.safetensors", None, "no valid URL"),
        ("https://example.com:99999/w.safetensors", None, "no valid URL"),
        ("https://example.com/w.pth", None, "--weights-sha256"),
        ("https://example.com/w.safetensors?file=x.pth", "12ab", "64 hexadecimal digits"),
        ("w.pth", "g" * 64, "64 hexadecimal digits"),
        ("hf:vit", None, "hf:owner/name"),
    ],
)
def test_what_is_refused_before_any_work(address, digest, words):
    with pytest.raises(RequestError, match=words) as caught:
        check_address(address, digest)
    assert "\n" not in str(caught.value)
    with pytest.raises(RequestError, match=words):
        ExportRequest("vit_ti16", weights=address, weights_sha256=digest)


def test_good_addresses():
    for address in ("https://example.com/w.safetensors", "http://localhost:1/w.npz", "http://[::1]:1/w.npz"):
        check_address(address)
    check_address("https://example.com/w.pth", "0" * 64)
    check_address("folder/w.pth")


def test_a_hash_belongs_to_weights():
    with pytest.raises(RequestError, match="no weights"):
        ExportRequest("vit_ti16", weights_sha256="0" * 64)
    with pytest.raises(RequestError, match="weights_sha256"):
        ExportRequest(object(), weights_sha256="0" * 64)


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_an_interrupted_download_leaves_nothing(web, cache, tmp_path):
    begun, done = threading.Event(), threading.Event()

    def stalled(page):
        page.send_response(200)
        page.send_header("Content-Length", "1000000")
        page.end_headers()
        page.wfile.write(WEIGHTS)
        begun.set()
        done.wait(30)

    web.pages["/w.safetensors"] = stalled
    command = ["--model", "vit_ti16", "--weights", f"{web.url}/w.safetensors", "--out", str(tmp_path / "out")]
    program = subprocess.Popen(
        [sys.executable, "-c", "from tome_export.cli import main; main()", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert begun.wait(60)
        deadline = time.monotonic() + 10
        while not any(cache.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert any(cache.iterdir())  # a part of it is there
        program.send_signal(signal.SIGINT)
        output, error = program.communicate(timeout=30)
    finally:
        done.set()
        program.kill()
    assert (program.returncode, output) == (130, "") and error.count("\n") == 1
    assert not any(cache.iterdir()) and not (tmp_path / "out").exists()
