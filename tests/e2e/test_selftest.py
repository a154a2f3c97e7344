# SPDX-License-Identifier: GPL-2.0-or-later
"""The set-up that the kernel tests its own IPVS with (tools/testing/selftests/net/netfilter/ipvs.sh), with the director in the kernel's place.

    client                       director                    server
    br0 10.0.0.2/24              veth10 10.0.0.1/24          veth21 172.16.0.2/24
     |- veth01 ----------------- veth10                      veth20 10.0.0.3/24
     `- veth02 --------------------------------------------- veth20
                                 veth12 172.16.0.1/24 ------ veth21

One service, one server that isn't on the clients' network, replies past the director but for NAT. The service is made by the same commands,
with an `ipvsadm` that is ours. Where the kernel's test sends 32 bytes once and one way, here several clients at once get back what they sent.
"""

import concurrent.futures
import contextlib
import itertools
import os
import random
import socket
import subprocess
import sys

import netns
import pytest
from cluster import BUILD

VIP, PORT = "207.175.44.110", 8080
CLIENT, SERVER, BEHIND = "10.0.0.2", "172.16.0.2", "10.0.0.3"
CLIENTS, LARGE = 8, 300_000
_numbers = itertools.count(1)

# Sends back what it got when the client has said all. Its standard output: the client's address, as the server sees it.
ECHO = f"""
import os, socketserver
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        os.write(1, self.client_address[0].encode() + b"\\n")  # in one piece: others write too
        self.wfile.write(self.rfile.read())
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address, request_queue_size = True, 64
Server(("", {PORT}), Echo).serve_forever()
"""


class Setup:
    """Three namespaces, a director on veth10 and veth12, and an echo server."""

    def __init__(self, folder):
        self.folder, self.prefix = folder, f"selftest{os.getpid()}-{next(_numbers)}"
        self.client, self.director, self.server = (f"{self.prefix}-{role}" for role in ("client", "director", "server"))
        self.environment = {**os.environ, "DIRECTOR_CONTROL": str(folder / "control.sock")}
        self.made: list[str] = []

    def up(self) -> None:
        for namespace in (self.client, self.director, self.server):
            netns.add_namespace(namespace)
            self.made.append(namespace)
        netns.add_bridge(self.client, "br0")
        netns.add_veth(self.client, "veth01", self.director, "veth10")
        netns.add_veth(self.client, "veth02", self.server, "veth20")
        netns.add_veth(self.director, "veth12", self.server, "veth21")
        for port in ("veth01", "veth02"):
            netns.ip(self.client, "link", "set", port, "master", "br0")
        for namespace, device, address in ((self.client, "br0", CLIENT), (self.director, "veth10", "10.0.0.1"), (self.director, "veth12", "172.16.0.1"),
                                           (self.server, "veth21", SERVER), (self.server, "veth20", BEHIND)):
            netns.ip(namespace, "address", "add", f"{address}/24", "dev", device)
        for namespace, devices in ((self.director, ("veth10", "veth12")), (self.server, ("veth20", "veth21"))):
            for device in ("all", *devices):
                netns.set_sysctl(namespace, f"net.ipv4.conf.{device}.rp_filter", "0")
        netns.ip(self.client, "route", "add", VIP, "via", "10.0.0.1", "dev", "br0")
        rules = self.folder / "none.rules"
        rules.write_text("")
        netns.spawn(self.director, [str(BUILD / "director"), "--device", "front=packet:veth10", "--device", "back=packet:veth12", "--rules", str(rules),
                                    "--control", str(self.folder / "control.sock")], self.folder / "director.log")
        (self.folder / "ipvsadm").symlink_to(BUILD / "vsadm")
        netns.wait_until(lambda: self.ipvsadm("-Ln", check=False).returncode == 0, 20, "the director's control socket")
        netns.spawn(self.server, [sys.executable, "-c", ECHO], self.folder / "server.log")
        netns.wait_until(lambda: netns.listens(self.server, "0.0.0.0", PORT), 20, "the server")

    def down(self) -> None:
        for namespace in self.made:
            netns.remove_namespace(namespace)

    def ipvsadm(self, *words: str, check: bool = True) -> subprocess.CompletedProcess:
        return netns.run([str(self.folder / "ipvsadm"), *words], check=check, env=self.environment)

    def service(self, method: str) -> None:
        self.ipvsadm("-A", "-t", f"{VIP}:{PORT}", "-s", "rr")
        self.ipvsadm("-a", "-t", f"{VIP}:{PORT}", "-r", f"{SERVER}:{PORT}", method)

    def realserver(self, mode: str) -> None:
        netns.run([*netns.enter(self.server), str(BUILD / "realserver"), "up", "--mode", mode, "--vip", VIP, "--interface", "veth21",
                   *(["--daemon"] if mode == "tun" else [])])

    def exchange(self, data: bytes) -> bytes:
        with netns.inside(self.client):
            peer = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        with peer:
            peer.settimeout(20)
            peer.connect((VIP, PORT))
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: peer.recv(65536), b""))

    def statistics(self) -> list[int]:
        """Of the real server: connections, packets in and out, bytes in and out."""
        row = next(line for line in self.ipvsadm("-Ln", "--stats", "--exact").stdout.splitlines() if line.startswith("  ->") and SERVER in line)
        return [int(word) for word in row.split()[2:]]

    def replies_pass_director(self) -> bool:
        """The director's own word to a client, that a packet is too big for a tunnel, is counted there too, but is not much."""
        return self.statistics()[4] > LARGE


@pytest.fixture
def setup(tmp_path):
    made = Setup(tmp_path)
    with contextlib.ExitStack() as stack:
        stack.callback(made.down)
        made.up()
        yield made


@pytest.mark.parametrize("method", ["droute", "masq", "tunnel"])
def test_the_kernels_own_cases(setup, method):
    if method == "masq":
        netns.ip(setup.server, "link", "del", "veth20")
        netns.ip(setup.server, "route", "add", "default", "via", "172.16.0.1")
    else:
        setup.realserver({"droute": "dr", "tunnel": "tun"}[method])
    netns.set_sysctl(setup.director, "net.ipv4.ip_forward", "0" if method == "tunnel" else "1")
    setup.service({"droute": "-g", "masq": "-m", "tunnel": "-i"}[method])

    payloads = [random.randbytes(32) for _ in range(CLIENTS - 1)] + [random.randbytes(LARGE)]
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        assert [setup.exchange(payloads[0])] == payloads[:1]  # the kernel's test ends here
        assert list(pool.map(setup.exchange, payloads)) == payloads

    seen = (setup.folder / "server.log").read_text().split()
    assert [address for address in seen if address != "127.0.0.1"] == [CLIENT] * (CLIENTS + 1)  # 127.0.0.1 asked whether it listens
    assert setup.statistics()[0] == CLIENTS + 1
    assert setup.replies_pass_director() == (method == "masq")
