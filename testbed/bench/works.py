# SPDX-License-Identifier: GPL-2.0-or-later
"""What is measured: one function for each load, which makes it once with one contender and says what came out.

A load may give more than one row (a download has a speed and a price). Every function measures the same way for everybody,
and knows no contender by name.
"""

import contextlib
import json
import os
import re
import select
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import netns
from bench.contenders import DNS, CantRun, Contender, Director
from bench.cpu import Meter
from bench.flood import SIZE
from watch import ETH_P_ALL

HERE = Path(__file__).parent
WRK = ("-t1", "-c32")  # one thread keeps 32 connections busy: the other processor is the servers' and the director's
SERVICES = 1000  # of `start`


@dataclass(frozen=True)
class Plan:
    """How long and how big."""

    seconds: float  # of a sample of requests or datagrams
    size: int  # bytes of a bulk transfer
    idle: float  # seconds of doing nothing
    file: Path = Path("/nonexistent")  # what is transferred
    packet_rate: int = 50_000  # a second, when the price of a packet is what is wanted
    request_rate: float = 1000  # a second, when the time of a request is what is wanted; rounds.py finds it


@dataclass
class Sample:
    """What a load gave: a value for each row, and what helps to judge it."""

    values: dict[str, float]
    spent: Meter = field(default_factory=Meter)
    remarks: dict[str, float] = field(default_factory=dict)  # kept beside the value in the JSON file


# --- requests ---


def wrk(made: Contender, seconds: float, *more: str) -> tuple[float, Meter]:
    """Requests a second."""
    with Meter() as spent:
        answer = made.lab.exec("client", ["wrk", *WRK, f"-d{max(1, round(seconds))}s", *more, made.url]).stdout
    if not (found := re.search(r"^Requests/sec:\s*([\d.]+)", answer, re.MULTILINE)) or float(found[1]) == 0:
        raise CantRun("wrk got no answers")
    if wrong := re.search(r"Non-2xx.*", answer):
        raise CantRun(f"wrk: {wrong[0]}")
    return float(found[1]), spent


def kept(made: Contender, plan: Plan) -> Sample:
    rate, spent = wrk(made, plan.seconds)
    return Sample({"http-kept": rate}, spent)


def new(made: Contender, plan: Plan) -> Sample:
    rate, spent = wrk(made, plan.seconds, "-H", "Connection: close")
    return Sample({"http-new": rate}, spent)


def latency(made: Contender, plan: Plan) -> Sample:
    """An open loop at a rate that is the same for everybody."""
    address, port = made.web
    with Meter() as spent:
        answer = made.lab.exec("client", [sys.executable, str(HERE / "paced.py"), address, str(port), str(plan.request_rate),
                                          str(max(plan.seconds, 0.5))]).stdout
    result = json.loads(answer)
    if result["answered"] < 0.9 * result["asked"]:
        raise CantRun(f"only {result['answered']} of {result['asked']} requests were answered")
    return Sample({"latency-p50": result["p50"], "latency-p99": result["p99"]}, spent, {"rate": plan.request_rate})


# --- bulk ---


def make_bulk_file(folder: Path, size: int) -> Path:
    """A hole of that size, one for all labs, read once: it is memory then, also where `folder` is on a disk."""
    file = folder / "bulk"
    with file.open("w+b") as hole:
        hole.truncate(size)
        piece = bytearray(1 << 20)
        while hole.readinto(piece):
            pass
    return file


def serve(made: Contender, file: Path) -> None:
    link = made.lab.folder / "files" / file.name
    if not link.is_symlink():
        link.symlink_to(file)


@contextlib.contextmanager
def apart(made: Contender):
    """Client and servers on a processor each, as if they were two machines; who forwards is where the scheduler wants.

    Left to the scheduler both are on one at times, and then a transfer is half as fast, whoever forwards.
    """
    everywhere = sorted(os.sched_getaffinity(0))
    servers = [process.pid for what, process in made.lab.processes.items() if what.endswith(" nginx")]
    if len(everywhere) < 2:
        yield
        return
    for pid in servers:
        os.sched_setaffinity(pid, everywhere[1:2])
    os.sched_setaffinity(0, everywhere[:1])  # what is started here inherits it
    try:
        yield
    finally:
        os.sched_setaffinity(0, everywhere)
        for pid in servers:
            os.sched_setaffinity(pid, everywhere)


def curl(made: Contender, kind: str, size: int, *words: str) -> tuple[float, Meter]:
    """Bytes a second."""
    with apart(made), Meter() as spent:
        answer = made.lab.exec("client", ["curl", "-sS", "-m", "60", "-o", os.devnull, "-w", f"%{{size_{kind}}} %{{speed_{kind}}}",
                                          *words], timeout=90, check=False)
    if answer.returncode != 0:
        raise CantRun(answer.stderr.strip() or f"curl ended with {answer.returncode}")
    moved, speed = map(float, answer.stdout.split())
    if moved != size:
        raise CantRun(f"curl moved {moved:.0f} of {size} bytes")
    return speed, spent


def down(made: Contender, plan: Plan) -> Sample:
    serve(made, plan.file)
    speed, spent = curl(made, "download", plan.size, made.url + plan.file.name)
    return Sample({"bulk-down": speed / 1e6, "cpu-per-gb": spent.ours / (plan.size / 1e9)}, spent)


def up(made: Contender, plan: Plan) -> Sample:
    speed, spent = curl(made, "upload", plan.size, "-H", "Expect:", "-T", str(plan.file), f"{made.url}sink")
    return Sample({"bulk-up": speed / 1e6}, spent)


# --- datagrams ---


@dataclass
class Flood:
    sent: float  # a second
    arrived: float  # a second
    total: int
    spent: Meter


def flood(made: Contender, seconds: float, senders: int, rate: float = 0) -> Flood:
    made.check_datagrams()
    address, port = made.names
    before = made.datagrams(SIZE)
    start = time.monotonic() + 0.3 + 0.2 * senders  # Python starts, and makes its sockets, before
    command = [*netns.enter(made.lab.namespace("client")), sys.executable, str(HERE / "flood.py"), address, str(port), str(start),
               str(seconds), str(rate)]
    programs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(senders)]
    try:
        netns.wait_until(lambda: time.monotonic() > start, 5, "the senders")
        with Meter() as spent:
            netns.wait_until(lambda: time.monotonic() > start + seconds, seconds + 5, "the datagrams")
        results = [json.loads(program.communicate(timeout=30)[0]) for program in programs]
    finally:
        for program in programs:
            program.kill()
            program.wait()
    arrived, last = made.datagrams(SIZE), -1
    while arrived != last:  # what still waits in queues
        last, arrived = arrived, made.datagrams(SIZE)
    took = max(result["seconds"] for result in results)
    total = arrived - before
    return Flood(sum(result["sent"] for result in results) / took, total / took, total, spent)


def datagrams(made: Contender, plan: Plan) -> Sample:
    """As many as arrive, with one sender and with two: whichever gets more through.

    Where the kernel forwards, it does so on the sender's processor, and two senders use both. The director is a process, and
    two senders leave it less to run on.
    """
    best = max((flood(made, plan.seconds / 2, senders) for senders in (1, 2)), key=lambda one: one.arrived)
    if best.total == 0:
        raise CantRun("no datagram arrived")
    return Sample({"udp-small": best.arrived}, best.spent, {"sent": best.sent})


def price_of_packet(made: Contender, plan: Plan) -> Sample:
    """At a rate that leaves processors idle: microseconds of all of them for one that arrives, sender and server included."""
    one = flood(made, max(plan.seconds, 0.3), 1, plan.packet_rate)
    if one.total == 0:
        raise CantRun("no datagram arrived")
    return Sample({"cpu-per-packet": 1e6 * one.spent.ours / one.total}, one.spent, {"rate": plan.packet_rate})


# --- a process that waits, and one that starts ---


def switches(made: Contender) -> int:
    """How often its processes have gone to wait, which is how often they were awake."""
    total = 0
    for process in made.processes():
        for task in Path(f"/proc/{process.pid}/task").iterdir():
            total += int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", (task / "status").read_text(), re.MULTILINE)[1])
    return total


def ticks(made: Contender) -> int:
    """Of processor time its processes took, in 1/100 s."""
    total = 0
    for process in made.processes():
        total += sum(map(int, Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return total


def start(made: Contender, plan: Plan) -> Sample:
    """From exec to the first datagram at a server, with 1000 services; it knows no neighbour yet. Then all as it was."""
    if not isinstance(made, Director):
        raise CantRun("only the director is started anew")
    lab, topology = made.lab, made.lab.topology
    made.lab.stop_director()
    rules, usual = lab.rules_file, lab.rules_file.read_text()
    service = usual.splitlines()
    block = [line for line in service if f"-t {topology.vip}:80" in line]
    more = [line.replace(f"-t {topology.vip}:80", f"-t {topology.vip}:{10000 + number}")
            for number in range(SERVICES - 2) for line in block]
    rules.write_text("\n".join([*service, *more]) + "\n")
    sockets = []
    try:
        for server in topology.servers:
            with netns.inside(lab.namespace(server.name)):
                one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))  # before realserver's program
            one.bind((server.links[0].interface, ETH_P_ALL))
            sockets.append(one)
        with netns.inside(lab.namespace("client")):
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sockets.append(client)
        # The client knows where the VIP is: its own patience between questions (1 s) is not the director's.
        netns.ip(lab.namespace("client"), "neighbour", "replace", topology.vip, "lladdr", made.mac(), "dev",
                 topology.client.links[0].interface, "nud", "permanent")
        mark = b"first packet of " + os.urandom(16)
        with netns.inside(made.node), (lab.logs / "start.log").open("wb") as log:
            began = time.monotonic()
            program = subprocess.Popen(lab.director_command(*made.words()), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       env=lab.environment())
        try:
            took = _first(sockets[:-1], client, (topology.vip, DNS), mark, began)
        finally:
            program.terminate()
            program.wait()
    finally:
        for one in sockets:
            one.close()
        netns.ip(lab.namespace("client"), "neighbour", "del", topology.vip, "dev", topology.client.links[0].interface)
        rules.write_text(usual)
        made.start()
    lab.wait_for(made.url)
    return Sample({"start": 1000 * took})


def _first(servers: list, client: socket.socket, to: tuple, mark: bytes, began: float) -> float:
    """Sends the mark every half millisecond until a server has it."""
    while time.monotonic() < began + 10:
        try:
            client.sendto(mark, to)
        except OSError:
            pass  # what ICMP said of an earlier one
        for ready in select.select(servers, [], [], 0.0005)[0]:
            if mark in ready.recv(2048):
                return time.monotonic() - began
    raise CantRun("no packet was forwarded within 10 s")


# --- the list ---


@dataclass(frozen=True)
class Work:
    name: str
    unit: str
    more_is_better: bool
    title: str


WORKS = {work.name: work for work in (
    Work("http-kept", "requests/s", True, "requests on kept connections"),
    Work("http-new", "connections/s", True, "new connections, one request each"),
    Work("bulk-down", "MB/s", True, "bulk download"),
    Work("bulk-up", "MB/s", True, "bulk upload"),
    Work("udp-small", "datagrams/s", True, "64-byte UDP datagrams delivered"),
    Work("latency-p50", "µs", False, "time of a request at half load, median"),
    Work("latency-p99", "µs", False, "time of a request at half load, 99th percentile"),
    Work("cpu-per-packet", "µs", False, "processor time of the whole machine per small packet"),
    Work("cpu-per-gb", "s", False, "processor time of the whole machine per GB downloaded"),
    Work("idle", "wake-ups/s", False, "wake-ups without traffic"),
    Work("start", "ms", False, "start to first packet, 1000 services"),
)}
# Which load gives which rows, in the order they are made.
LOADS = {kept: ("http-kept",), new: ("http-new",), down: ("bulk-down", "cpu-per-gb"), up: ("bulk-up",), datagrams: ("udp-small",),
         price_of_packet: ("cpu-per-packet",), latency: ("latency-p50", "latency-p99"), start: ("start",)}
