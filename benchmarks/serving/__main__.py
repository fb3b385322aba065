"""Load `tome-export serve` and say what it does.

python -m benchmarks.serving BUNDLE [--seconds 60] [--clients 16] [--precision int8] [--faults] [--kill-
replica] [--sigterm] [--json FILE]

It starts the server itself, on this machine. Without --faults, --kill-replica and --sigterm: throughput in
turns with the bundle in this process, latencies, mean batch, memory, and what HTTP adds to gRPC. These
options add their part; --only leaves the first part out. Exits with 1 if a request was lost, an answer was
wrong, or a fault was told anything but what it must be."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from benchmarks.serving import clients, drills, hostile, measure, report
from benchmarks.serving.load import Load
from benchmarks.serving.server import Memory, served
from tome_export.benching.machine import machine
from tome_export.quiet import quiet

_BODY_MB, _BODY_SECONDS = 8, 3


def main() -> int:
    arguments = _parse()
    found: dict[str, object] = {}
    with quiet(arguments.debug) as session:
        show = lambda text: print(text, file=session.stdout, flush=True)  # noqa: E731
        bad = _run(arguments, show, found)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2, default=str) + "\n", encoding="utf-8")
    return int(bad)


def _run(arguments: argparse.Namespace, show, found: dict[str, object]) -> bool:
    """Do what is asked; whether anything went wrong."""
    bundle, protocols, count = arguments.bundle, arguments.protocols.split(","), arguments.clients
    asked = clients.questions(
        bundle, arguments.runtime, arguments.precision, arguments.threads, clients.photographs()
    )
    show(
        f"{bundle}, {arguments.runtime} {arguments.precision}, {count} clients; {machine(arguments.threads)}"
    )
    options = ("--runtime", arguments.runtime, "--precision", arguments.precision)
    options += ("--threads", arguments.threads, "--max-batch", arguments.max_batch)
    options += ("--replicas", arguments.replicas, "--body-timeout", _BODY_SECONDS, "--max-body-mb", _BODY_MB)
    bad = False
    with served(bundle, *options) as server:
        if not arguments.only:
            with Memory(server) as memory:
                rate = measure.in_turns(
                    server,
                    asked,
                    bundle,
                    arguments.runtime,
                    arguments.precision,
                    arguments.threads,
                    count,
                    protocols,
                    arguments.seconds,
                    arguments.turns,
                )
            added = measure.http_and_grpc(server, asked, arguments.pairs)
            show(f"\n{report.throughput(rate)}\n{report.memory(memory)}\n\n{report.added(added)}")
            found |= {"throughput": report.as_dict(rate), "added": report.as_dict(added)}
            found["memory"] = memory.samples
            bad |= bool(rate.record.lost)
        if arguments.faults:
            enemies = hostile.Enemies(server, asked, _BODY_MB, _BODY_SECONDS)
            with Memory(server) as memory, Load(server, asked, count, clients.PROTOCOLS) as load:
                with hostile.Attack(enemies) as attack:
                    load.ask_for(arguments.seconds)
            show(f"\n{report.faults(attack.told)}\n{report.memory(memory)}\n")
            show(f"{report.latency_table(load.record)}{report.trouble(load.record)}")
            found["faults"] = report.as_dict(attack.told) | {"load": dict(load.record.lost)}
            found["memory_under_faults"] = memory.samples
            bad |= bool(load.record.lost or attack.told.wrong)
        if arguments.kill_replica:
            killed = drills.kill_a_replica(server, asked, count, arguments.seconds / 3, clients.PROTOCOLS)
            show(f"\n{report.killed(killed)}")
            found["killed"] = report.as_dict(killed)
            bad |= bool(killed.record.lost)
        if arguments.sigterm:
            stopped = drills.terminate(server, asked, count, arguments.seconds / 6, clients.PROTOCOLS)
            show(f"\n{report.stopped(stopped)}")
            found["stopped"] = report.as_dict(stopped)
            bad |= bool(stopped.record.lost or stopped.status)
    return bad


def _parse() -> argparse.Namespace:
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seconds", type=float, default=60, help="of load")
    parser.add_argument("--turns", type=int, default=6, help="into which they are divided")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--protocols", default="http,grpc", help=f"of the clients, of {clients.PROTOCOLS}")
    parser.add_argument("--pairs", type=int, default=50, help="of requests over HTTP and gRPC")
    parser.add_argument("--runtime", default="onnx")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--threads", type=int, default=cores, help="of the model, there and here")
    parser.add_argument("--max-batch", type=int, default=16)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--faults", action="store_true", help="also hostile clients beside the load")
    parser.add_argument("--kill-replica", action="store_true", help="also kill a replica under load")
    parser.add_argument("--sigterm", action="store_true", help="also stop the server under load")
    parser.add_argument("--only", action="store_true", help="these, and no throughput")
    parser.add_argument("--json", type=Path, help="file to write")
    parser.add_argument("--debug", action="store_true", help="show third parties' output")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
