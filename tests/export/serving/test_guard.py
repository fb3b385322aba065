"""The guard, in front of applications that answer, fail, hang or vanish."""

import asyncio
import json

import pytest

from tome_export.serving.guard import CLOSE, DRAIN_HEADER, DRAIN_PATH, Gate, Guard
from tome_export.serving.http import BODY
from tome_export.serving.options import Limits

MIB = 1 << 20


def answering(status=200, body=b"{}", kind=b"application/json"):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})
        await send({"type": "http.response.body", "body": body})

    return app


async def silent(scope, receive, send):
    """As Ray's proxy does when it has lost the replica."""


async def hanging(scope, receive, send):
    await receive()
    while (await receive())["type"] != "http.disconnect":
        pass


class Client:
    """One request's ASGI channel: sends `parts`, `pause` seconds apart, and then stays or goes."""

    def __init__(self, parts=(b"",), pause=0.0, leaves=False):
        self._parts, self._pause, self._leaves = list(parts), pause, leaves
        self.messages = []

    async def receive(self):
        if self._parts:
            await asyncio.sleep(self._pause)
            part = self._parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(self._parts)}
        if not self._leaves:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.messages.append(message)

    @property
    def status(self):
        return self.messages[0]["status"]

    @property
    def headers(self):
        return dict(self.messages[0]["headers"])

    @property
    def error(self):
        return json.loads(self.messages[1]["body"])["error"]


def ask(guard, client=None, path="/predict", headers=(), query=b""):
    client = client or Client()
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "headers": list(headers),
        "query_string": query,
    }

    async def run():
        await asyncio.wait_for(guard(scope, client.receive, client.send), 20)

    asyncio.run(run())
    return client


def guarded(app, secret="", **limits):
    return Guard(app, Gate(Limits(body_mb=1, **limits)), secret)


def test_the_application_gets_the_whole_body_at_once():
    seen = []

    async def keep(scope, receive, send):
        seen.append((scope[BODY], await receive()))
        await send({"type": "http.response.start", "status": 200, "headers": []})

    ask(guarded(keep), Client([b"ab", b"", b"c"]))
    assert seen == [(b"abc", {"type": "http.request", "body": b"", "more_body": False})]


def test_too_large_a_body_is_refused_whether_declared_or_not():
    for client, headers in (
        (Client([b"x"]), [(b"content-length", b"%d" % (MIB + 1))]),
        (Client([b"x" * MIB, b"y"]), []),
    ):
        ask(guarded(answering()), client, headers=headers)
        assert client.status == 413 and "1 MiB" in client.error
        assert client.headers[b"connection"] == b"close"
    assert ask(guarded(answering()), Client([b"x" * MIB])).status == 200


def test_a_slow_body_is_given_up():
    client = ask(guarded(answering(), body_seconds=0.2), Client([b"x"] * 10, pause=0.1))
    assert client.status == 408 and client.headers[b"connection"] == b"close"


def test_a_client_that_leaves_gets_nothing_and_costs_nothing():
    gate = Gate(Limits())
    for app in (answering(), hanging):
        client = ask(Guard(app, gate), Client([b"x"] if app is hanging else [], leaves=True))
        assert client.messages == [] and gate.inside == 0


def test_a_lost_replica_is_asked_again_once():
    times = []

    async def lost_once(scope, receive, send):
        times.append(scope[BODY])
        if len(times) > 1:
            await answering()(scope, receive, send)

    assert ask(guarded(lost_once), Client([b"abc"])).status == 200
    assert times == [b"abc", b"abc"]
    client = ask(guarded(silent))
    assert client.status == 503 and "try again" in client.error
    assert client.headers[b"retry-after"] == b"1"


def test_an_answer_that_does_not_come_is_504():
    client = ask(guarded(hanging, answer_seconds=0.2))
    assert client.status == 504 and "0.2 seconds" in client.error


@pytest.mark.parametrize(("status", "shown"), [(404, 404), (408, 504), (500, 500), (503, 503)])
def test_what_the_proxy_says_by_itself_gets_the_protocols_form(status, shown):
    inside = ask(guarded(answering(status, b"Internal detail", b"text/plain; charset=utf-8")))
    assert inside.status == shown and "detail" not in inside.error
    own = ask(guarded(answering(status, b'{"error": "own words"}')))
    assert own.status == status and own.error == "own words"


def test_one_too_many_is_told_to_come_back():
    gate = Gate(Limits(requests=2))

    async def run():
        guard = Guard(hanging, gate)
        scope = {"type": "http", "method": "POST", "path": "/predict", "headers": [], "query_string": b""}
        clients = [Client() for _ in range(3)]
        tasks = [asyncio.create_task(guard(dict(scope), each.receive, each.send)) for each in clients]
        await asyncio.sleep(0.1)
        assert [bool(each.messages) for each in clients] == [False, False, True]
        assert clients[2].status == 503 and b"retry-after" in clients[2].headers
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())
    assert gate.inside == 0


def test_draining_needs_the_secret_and_turns_new_requests_away():
    closed = []
    guard = guarded(answering(404), secret="s3")
    guard._gate.closers.append(lambda: closed.append(True))
    for headers in ([], [(DRAIN_HEADER, b"s4")]):
        assert ask(guard, path=DRAIN_PATH, headers=headers).status == 404
    assert not guard._gate.draining
    assert ask(guarded(answering(404)), path=DRAIN_PATH, headers=[(DRAIN_HEADER, b"")]).status == 404

    told = ask(guard, path=DRAIN_PATH, headers=[(DRAIN_HEADER, b"s3")])
    assert told.status == 200 and told.messages[1]["body"] == b"0" and not closed
    assert ask(guard).status == 503
    assert ask(guard, path="/v2/health/ready").status == 503
    assert ask(guard, path="/v2/health/live").status == 200
    ask(guard, path=DRAIN_PATH, headers=[(DRAIN_HEADER, b"s3")], query=CLOSE)
    assert closed == [True]
