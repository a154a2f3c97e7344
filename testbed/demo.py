# SPDX-License-Identifier: GPL-2.0-or-later
"""`lab demo`: the three methods, one after another, with curl. What it prints was measured in that very run."""

import secrets
import subprocess
import time
from collections import Counter

import cluster
import scenarios
import screen
from cluster import FAILED, OK, Lab, Options
from screen import BOLD, FAINT, paint, say
from topology import in_url
from watch import ReplyCount

STORY = {
    "nat": "the director rewrites addresses and ports, both ways",
    "tun": "the director wraps the request in another packet; the server answers the client itself",
    "dr": "the director changes only the MAC address; the server answers the client itself",
}
INDENT = " " * 10


def main(servers: int = 3, requests: int = 12, **options) -> int:
    started = time.monotonic()
    name = f"demo-{secrets.token_hex(2)}"
    version = subprocess.run([cluster.BUILD / "director", "--version"], capture_output=True, text=True).stdout
    screen.done(f"{version.strip() or 'director'}, {servers} real servers with nginx, and curl")
    good = [_one(Options(name, mode, servers, **options), requests) for mode in scenarios.MODES]
    screen.done("cleaned up", time.monotonic() - started)
    say()
    say("next:  testbed/lab up --mode dr    keep one running      testbed/lab curl     send requests to it")
    say("       testbed/lab graph           its picture           testbed/lab down     take it away")
    return OK if all(good) else FAILED


def _one(options: Options, requests: int) -> bool:
    mode = options.mode
    method = scenarios.METHOD_NAME[mode]
    screen.tell("")
    lab = Lab(options)
    with screen.step(f"lab {options.name} for {method}"):
        lab.up()
    topology = lab.topology
    try:
        with ReplyCount(lab) as replies:
            pages = [lab.ask(url) for url in topology.urls for _ in range(requests)]
            lab.wait_for_last_replies()
            through, total = replies.through_director, replies.to_client
    finally:
        lab.down()

    spread = Counter({server.name: 0 for server in topology.servers})
    spread.update(page["server"] for page in pages)
    clients = sorted({page["client"] for page in pages})
    arrived = sorted({page["to"] for page in pages})
    say()
    say(f" {paint(method.ljust(9), BOLD)}{paint(STORY[mode], FAINT)}")
    say(f"{INDENT}{len(pages)} requests   {screen.spread(spread)}")
    say(f"{INDENT}client seen by the servers as {', '.join(clients)}")
    sent = ", ".join(f"{in_url(vip)}:80" for vip in topology.vips)
    say(f"{INDENT}sent to {sent}, arrived at {', '.join(arrived)}")
    say(f"{INDENT}reply frames through the director: {paint(f'{through} of {total}', BOLD)}")
    return all(spread.values()) and clients == sorted(topology.client.ips)
