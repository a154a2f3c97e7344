# SPDX-License-Identifier: GPL-2.0-or-later
"""Has the client visit every VIP while all wires are watched. Says what was seen; flows.py judges it."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import netns
from tracing.journeys import Sighting
from tracing.wires import Wires

UPLOAD = 20_000  # bytes: a dozen full packets, in this direction and in that
VISITS = 12  # of a VIP, at most; with rr each server has one
PATIENCE = "3"  # seconds, for each step


@dataclass(frozen=True)
class Visit:
    """One connection: a page, then an upload and a download of full-size packets."""

    vip: str
    server: str  # who sent the page; empty if nobody did, or not a lab's page
    page: bool
    upload: bool
    download: bool
    error: str  # curl's words


@dataclass(frozen=True)
class Traffic:
    visits: list[Visit]
    sightings: list[Sighting]
    reasons: dict[str, int]  # how often each came up meanwhile, at the director
    waiting: dict[str, int]  # connections that waited for the answer to their SYN all the time, by real server


def watch(facts) -> Traffic:
    lab, urls = facts.lab, list(zip(facts.topology.vips, facts.topology.urls))
    turns = [pair for pair in urls for _ in range(min(len(facts.topology.servers), VISITS))]
    before, waiting = _reasons(facts), _waiting(facts)
    with Wires(lab) as wires:
        with ThreadPoolExecutor(8) as pool:
            visits = list(pool.map(lambda pair: _visit(lab, *pair), turns))
        sightings = wires.seen()
    after, still = _reasons(facts), _waiting(facts) & waiting
    servers = [server for server, _ in still]
    return Traffic(visits, sightings, {name: count - before.get(name, 0) for name, count in after.items()},
                   {server: servers.count(server) for server in sorted(set(servers))})


def _visit(lab, vip: str, url: str) -> Visit:
    step = ["-sS", "-m", PATIENCE, "-w", "\n%{http_code}\n"]
    away = ["-o", os.devnull]
    argv = ["curl", "--fail-early", *step, url, "--next", *step, *away, "--data-binary", "@-", f"{url}post", "--next", *step, *away,
            "-r", f"0-{UPLOAD}", f"{url}10M"]
    answer = lab.exec("client", argv, check=False, input="x" * UPLOAD)
    lines = answer.stdout.split("\n")
    codes = [line for line in lines if line.isdigit() and len(line) == 3] + ["000"] * 3
    return Visit(vip, _server(lines[0]), codes[0] != "000", codes[1] != "000", codes[2] != "000",
                 next(iter(answer.stderr.strip().splitlines()), ""))


def _server(page: str) -> str:
    try:
        return json.loads(page)["server"]
    except (ValueError, KeyError, TypeError):
        return ""


def _reasons(facts) -> dict[str, int]:
    answer = facts.vsadm("reasons")
    return {reason["name"]: reason["count"] for reason in answer["reasons"]} if answer else {}


def _waiting(facts) -> set[tuple[str, int]]:
    """Real server and client's port of connections whose SYN has no answer: the director and the client both say so."""
    answer = facts.vsadm("-Lnc")
    sockets = facts.says("client", "ss", "-Htn", "state", "syn-sent").splitlines()
    ports = {int(line.split()[2].rpartition(":")[2]) for line in sockets}
    return {(entry["real"]["address"], entry["client"]["port"]) for entry in (answer or {}).get("connections", ())
            if entry["state"] == "SYN_RECV" and entry["client"]["port"] in ports}
