# SPDX-License-Identifier: GPL-2.0-or-later
"""realserver by itself: up, down, check, and its decapsulator, on a real server with a client and a gate before it.

client 10.7.0.1 -- 10.7.0.254 gate 10.8.0.254 -- 10.8.0.11 server. The gate is a router for the replies; what the client
sends to the VIP it puts into a tunnel (encapsulator.py), or a test sends from there what it likes.
"""

import contextlib
import hashlib
import itertools
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import netns
from cluster import BUILD
from conftest import has_tun
from encapsulator import IPIP, IPV6_IN_IPV4, Encapsulator, Wire, fragments, ipv4, ipv6, udp
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, IPv6
from scapy.layers.l2 import Ether
from tools import solicitation

REALSERVER = BUILD / "realserver"
VIP, VIP6 = "10.9.0.100", "fd00:9::100"
CLIENT, GATE, SERVER = "10.7.0.1", "10.8.0.254", "10.8.0.11"
GATE6, SERVER6 = "fd00:8::254", "fd00:8::11"
PORT = 8080
TEN_MEGABYTES = 10_000_000
needs_root = pytest.mark.skipif(os.environ.get("DIRECTOR_LAB_PRIVATE") is not None, reason="needs root outside of a user namespace")
_numbers = itertools.count(1)

# Says the client's address, the length and the hash of what was posted; /N answers N bytes.
WEB_SERVER = """
import hashlib, http.server
class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        length = int(self.path[1:] or 0)
        self.answer(bytes(length) if length else self.client_address[0].encode())
    def do_POST(self):
        left, digest = int(self.headers["Content-Length"]), hashlib.sha256()
        while left:
            part = self.rfile.read(min(left, 65536))
            left -= len(part)
            digest.update(part)
        self.answer(digest.hexdigest().encode())
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("", %d), Page).serve_forever()
""" % PORT


class Site:
    """The three namespaces and what runs in them."""

    def __init__(self, folder: Path):
        prefix = f"trs{os.getpid()}-{next(_numbers)}"
        self.client, self.gate, self.server = (f"{prefix}-{node}" for node in ("client", "gate", "server"))
        self.folder = folder
        self.state = folder / "state"

    def make(self) -> None:
        for name in (self.client, self.gate, self.server):
            netns.add_namespace(name)
            for scope in ("all", "default"):  # a namespace begins with the settings of the machine it is made on
                for key in ("arp_ignore", "arp_announce", "rp_filter"):
                    netns.set_sysctl(name, f"net.ipv4.conf.{scope}.{key}", "0")
        netns.add_veth(self.client, "eth0", self.gate, "front")
        netns.add_veth(self.gate, "back", self.server, "eth0")
        netns.ip(self.client, "address", "add", f"{CLIENT}/24", "dev", "eth0")
        netns.ip(self.client, "link", "set", "eth0", "mtu", "1480")  # room for the outer header
        netns.ip(self.client, "route", "add", "default", "via", "10.7.0.254")
        netns.ip(self.gate, "address", "add", "10.7.0.254/24", "dev", "front")
        netns.ip(self.gate, "address", "add", f"{GATE}/24", "dev", "back")
        netns.ip(self.gate, "route", "add", "blackhole", f"{VIP}/32")
        netns.set_sysctl(self.gate, "net.ipv4.ip_forward", "1")
        netns.ip(self.server, "address", "add", f"{SERVER}/24", "dev", "eth0")
        netns.ip(self.server, "route", "add", "default", "via", GATE)

    def remove(self) -> None:
        for name in (self.client, self.gate, self.server):
            if name in netns.namespaces():
                netns.remove_namespace(name)

    # --- realserver ---

    def realserver(self, *words: str, inside: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
        """`inside`: a command that runs it, after the namespace is entered."""
        argv = [*netns.enter(self.server), *inside, str(REALSERVER), *words, "--state", str(self.state)]
        return subprocess.run(argv, capture_output=True, text=True, timeout=30)

    def up(self, *words: str, **options) -> str:
        return succeeded(self.realserver("up", *words, **options))

    def down(self, *words: str) -> str:
        return succeeded(self.realserver("down", *words))

    def tunnel_line(self) -> str:
        return next(line for line in self.realserver("check").stdout.splitlines() if " tunnel " in line)

    def counts(self) -> dict[str, int]:
        """The decapsulator's, from check's line."""
        line = self.tunnel_line()
        counted = {name: int(number) for name, number in re.findall(r"([a-z_]+) (\d+)[,)]", line.partition("dropped")[2])}
        return counted | {"delivered": int(re.search(r"(\d+) packets in", line)[1])}

    def settled_counts(self, fate: str, least: int) -> dict[str, int]:
        netns.wait_until(lambda: self.counts().get(fate, 0) >= least, 5, f"{least} packets {fate}")
        return self.counts()

    def pid(self) -> int:
        return int(re.search(r"PID (\d+)", self.realserver("check").stdout)[1])

    # --- the network ---

    def mac(self, namespace: str, interface: str) -> str:
        return netns.ip_json(namespace, "link", "show", "dev", interface)[0]["address"]

    def wire(self, interface: str) -> Wire:
        peer = {"front": self.client, "back": self.server}[interface]
        return Wire(self.gate, interface, self.mac(self.gate, interface), self.mac(peer, "eth0"))

    @contextlib.contextmanager
    def tunnel(self):
        front, back = self.wire("front"), self.wire("back")
        with contextlib.closing(front), contextlib.closing(back), Encapsulator(front, back, VIP, GATE, SERVER) as encapsulator:
            yield encapsulator

    def socket(self, namespace: str, *kind) -> socket.socket:
        with netns.inside(namespace):
            opened = socket.socket(*kind)
        opened.settimeout(5)
        return opened

    def serve_web(self) -> None:
        netns.spawn(self.server, [sys.executable, "-c", WEB_SERVER], self.folder / "web.log")
        netns.wait_until(lambda: netns.listens(self.server, SERVER, PORT), 10, "the web server")

    def curl(self, *words: str, path: str = "/") -> str:
        argv = [*netns.enter(self.client), "curl", "-sS", "-m", "20", *words, f"http://{VIP}:{PORT}{path}"]
        return succeeded(subprocess.run(argv, capture_output=True, text=True, timeout=30))

    def picture(self) -> dict:
        """Everything of the server that `up` may touch."""
        settings = subprocess.run([*netns.enter(self.server), "sysctl", "-a", "-r", r"^net\.ipv[46]\.conf\..*"],
                                  capture_output=True, text=True).stdout
        addresses = {(link["ifname"], a["local"], a["prefixlen"])
                     for link in netns.ip_json(self.server, "address", "show") for a in link["addr_info"]}
        return {"settings": settings, "addresses": addresses, "files": sorted(self.state.glob("*"))}

    def errors(self) -> dict[str, int]:
        """The server's counters of wrong checksums and headers, those that aren't zero."""
        text = subprocess.run([*netns.enter(self.server), "cat", "/proc/net/snmp"], capture_output=True, text=True).stdout
        lines = text.splitlines()
        found = {}
        for names, numbers in zip(lines[::2], lines[1::2]):
            for name, number in zip(names.split()[1:], numbers.split()[1:]):
                if name in ("InCsumErrors", "InHdrErrors") and int(number):
                    found[names.split(":")[0] + name] = int(number)
        return found


class Solicitor:
    """Asks for addresses by neighbour discovery, from a packet socket, and hears what is asked."""

    def __init__(self, namespace: str, interface: str, address: str):
        self.address, self.mac = address, netns.ip_json(namespace, "link", "show", "dev", interface)[0]["address"]
        with netns.inside(namespace):
            self.wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self.wire.bind((interface, 0x86DD))  # ETH_P_IPV6
        self.wire.settimeout(0.1)

    def __enter__(self) -> "Solicitor":
        return self

    def __exit__(self, *_) -> None:
        self.wire.close()

    def _ask(self, target: str) -> None:
        self.wire.send(solicitation(self.mac, self.address, target))

    def _hear(self) -> Ether | None:
        with contextlib.suppress(TimeoutError):
            return Ether(self.wire.recv(2048))
        return None

    def who_answers(self, target: str, before: str = "", within: float = 5) -> set[str]:
        """The MAC addresses that advertise `target`, until `before` is, which is asked for next (without it: until one does)."""
        answers: dict[str, set[str]] = {target: set()}

        def heard() -> bool:
            frame = self._hear()
            if frame and ICMPv6ND_NA in frame:
                answers.setdefault(frame[ICMPv6ND_NA].tgt, set()).add(frame.src)
            return bool(answers.get(before or target))

        self._ask(target)
        if before:
            self._ask(before)
        netns.wait_until(heard, within, f"an advertisement of {before or target}")
        return answers[target]

    def next_question(self, target: str) -> IPv6:
        found = []

        def heard() -> bool:
            frame = self._hear()
            if frame and ICMPv6ND_NS in frame and frame[ICMPv6ND_NS].tgt == target:
                found.append(frame[IPv6])
            return bool(found)

        netns.wait_until(heard, 5, f"a solicitation of {target}")
        return found[0]


def succeeded(result: subprocess.CompletedProcess) -> str:
    assert result.returncode == 0, f"{result.args}: {result.returncode}\n{result.stdout}{result.stderr}"
    return result.stdout


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    try:
        made.make()
        yield made
    finally:
        made.remove()


WITHOUT_TUN = ("unshare", "--mount", "sh", "-c", 'mount --bind /dev/null /dev/net/tun && exec "$@"', "sh")
WAYS = [
    pytest.param("TUN", (), marks=pytest.mark.skipif(not has_tun(), reason="/dev/net/tun can't be opened")),
    pytest.param("veth", WITHOUT_TUN if has_tun() else ()),
]


@pytest.fixture
def upload(tmp_path) -> Path:
    file = tmp_path / "upload"
    file.write_bytes(os.urandom(TEN_MEGABYTES))
    return file


class TestDecapsulator:
    @pytest.mark.parametrize("way, inside", WAYS)
    def test_ten_megabytes_each_way_with_partial_checksums(self, site, upload, way, inside):
        assert f"({way})" in site.up("--mode", "tun", "--vip", VIP, "--daemon", inside=inside)
        site.serve_web()
        with site.tunnel() as tunnel:
            assert site.curl() == CLIENT
            assert site.curl("-H", "Expect:", "--data-binary", f"@{upload}") == hashlib.sha256(upload.read_bytes()).hexdigest()
            assert len(site.curl(path=f"/{TEN_MEGABYTES}")) == TEN_MEGABYTES
        assert tunnel.partial > 6000, "the inner checksums were to be partial"
        assert not site.errors()
        counts = site.counts()
        assert counts["delivered"] == tunnel.sent and set(counts) == {"delivered"}

    @needs_root
    @pytest.mark.parametrize("way, inside", WAYS)
    def test_super_frames_pass_whole(self, site, upload, way, inside):
        """The server's side of the wire merges segments (GRO), as a network card's driver does."""
        netns.merge_segments(site.gate, "back", site.server, "eth0")
        site.up("--mode", "tun", "--vip", VIP, "--daemon", inside=inside)
        site.serve_web()
        with site.tunnel() as tunnel:
            assert site.curl("-H", "Expect:", "--data-binary", f"@{upload}") == hashlib.sha256(upload.read_bytes()).hexdigest()
        counts = site.counts()
        assert counts["delivered"] < tunnel.sent / 2, "no super-frame has arrived, so nothing was tested"
        assert set(counts) == {"delivered"}
        assert not site.errors()

    def test_an_outer_packet_in_fragments(self, site):
        site.up("--mode", "tun", "--vip", VIP, "--daemon")
        data = os.urandom(4000)
        packet = ipv4(GATE, SERVER, IPIP, ipv4(CLIENT, VIP, 17, udp(CLIENT, VIP, 53, data)), fragment=0)
        with site.socket(site.server, socket.AF_INET, socket.SOCK_DGRAM) as service, contextlib.closing(site.wire("back")) as wire:
            service.bind((VIP, 53))
            wire.send(*fragments(packet, 1480))
            assert service.recvfrom(65536) == (data, (CLIENT, 4000))
            wire.send(*reversed(fragments(packet, 1480)))
            assert service.recvfrom(65536) == (data, (CLIENT, 4000))
        assert site.counts() == {"delivered": 2}

    def test_an_ipv6_vip_in_an_ipv4_tunnel(self, site):
        netns.ip(site.server, "-6", "route", "add", "default", "dev", "eth0")
        site.up("--mode", "tun", "--vip", VIP6, "--daemon")
        packet = ipv6("2001:db8::5", VIP6, 17, udp("2001:db8::5", VIP6, 53, b"question"))
        with site.socket(site.server, socket.AF_INET6, socket.SOCK_DGRAM) as service, contextlib.closing(site.wire("back")) as wire:
            service.bind((VIP6, 53))
            wire.send(ipv4(GATE, SERVER, IPV6_IN_IPV4, packet))
            data, sender = service.recvfrom(100)
            assert data == b"question" and sender[:2] == ("2001:db8::5", 4000)

    def test_congestion_marks(self, site):
        """RFC 6040: a mark from the way through the tunnel reaches the service, or the packet is dropped."""
        not_ect, ect0, ce = 0, 2, 3
        site.up("--mode", "tun", "--vip", VIP, "--daemon")
        with site.socket(site.server, socket.AF_INET, socket.SOCK_DGRAM) as service, contextlib.closing(site.wire("back")) as wire:
            service.bind((VIP, 53))
            service.setsockopt(socket.IPPROTO_IP, 13, 1)  # IP_RECVTOS
            for inner, outer in ((not_ect, ce), (ect0, ce), (ect0, ect0), (ce, not_ect)):
                datagram = udp(CLIENT, VIP, 53, bytes([inner, outer]))
                wire.send(ipv4(GATE, SERVER, IPIP, ipv4(CLIENT, VIP, 17, datagram, tos=inner), tos=outer))
            seen = {}
            for _ in range(3):
                data, ancillary, _, _ = service.recvmsg(100, 100)
                seen[tuple(data)] = ancillary[0][2][0] & 3
        assert seen == {(ect0, ce): ce, (ect0, ect0): ect0, (ce, not_ect): ce}
        assert site.counts() == {"delivered": 3, "congestion_lost": 1}

    def test_it_is_no_open_relay(self, site):
        """With forwarding on, nothing that isn't for a VIP comes out of the tunnel interface, in any direction."""
        netns.set_sysctl(site.server, "net.ipv4.ip_forward", "1")
        site.up("--mode", "tun", "--vip", VIP, "--daemon")

        def tunnelled(inner_target: str, outer_target: str = SERVER) -> bytes:
            return ipv4(GATE, outer_target, IPIP, ipv4("198.51.100.7", inner_target, 17, udp("198.51.100.7", inner_target, 53, b"x")))

        with site.socket(site.server, socket.AF_INET, socket.SOCK_DGRAM) as service, \
                site.socket(site.client, socket.AF_INET, socket.SOCK_DGRAM) as victim, contextlib.closing(site.wire("back")) as wire:
            service.bind(("0.0.0.0", 53))
            victim.bind((CLIENT, 53))
            wire.send(tunnelled(CLIENT), tunnelled(SERVER), tunnelled("127.0.0.1"), tunnelled(VIP, "10.8.0.12"), tunnelled(VIP))
            assert service.recvfrom(100)[1][0] == "198.51.100.7"  # the last one
            counts = site.settled_counts("delivered", 1)
            service.setblocking(False)
            victim.setblocking(False)
            for nobody in (service, victim):
                with pytest.raises(BlockingIOError):
                    nobody.recv(100)
        assert counts == {"delivered": 1, "not_a_vip": 3, "not_ours": 1}

    def test_malformed_packets_are_counted_and_survived(self, site):
        site.up("--mode", "tun", "--vip", VIP, "--daemon")
        good = ipv4(GATE, SERVER, IPIP, ipv4(CLIENT, VIP, 17, udp(CLIENT, VIP, 53, b"hello")))
        wrong_sum = good[:10] + b"\0\0" + good[12:]
        short_inner = ipv4(GATE, SERVER, IPIP, b"\x45")
        long_inner = ipv4(GATE, SERVER, IPIP, good[20:22] + b"\xff\xff" + good[24:])
        with site.socket(site.server, socket.AF_INET, socket.SOCK_DGRAM) as service, contextlib.closing(site.wire("back")) as wire:
            service.bind((VIP, 53))
            wire.send(wrong_sum, short_inner, long_inner, ipv4(GATE, SERVER, IPIP, b""), good[:30], good)
            assert service.recv(100) == b"hello"
        assert site.counts() == {"delivered": 1, "outer_checksum": 1, "inner_malformed": 3, "outer_malformed": 1}

    def test_the_kernel_stays_silent_about_the_protocol(self, site):
        """No ICMP "protocol unreachable" for what the decapsulator takes; it comes when there is none."""
        packet = ipv4(GATE, SERVER, IPIP, ipv4(CLIENT, VIP, 17, udp(CLIENT, VIP, 53, b"hello")))
        with site.socket(site.gate, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as icmp, \
                site.socket(site.server, socket.AF_INET, socket.SOCK_DGRAM) as service, contextlib.closing(site.wire("back")) as wire:
            site.up("--mode", "tun", "--vip", VIP, "--daemon")
            service.bind((VIP, 53))
            wire.send(packet, packet, packet)
            for _ in range(3):
                assert service.recv(100) == b"hello"
            # An echo behind them: were there an answer to them, it would have come before this one's.
            wire.send(ipv4(GATE, SERVER, 1, struct.pack("!BBHHH", 8, 0, 0xF7FF - 7, 0, 7)))
            assert icmp.recv(1000)[20] == 0, "an echo reply, and nothing before it"
            site.down("--mode", "tun", "--vip", VIP)
            wire.send(packet)
            assert icmp.recv(1000)[20:22] == bytes([3, 2])

    @pytest.mark.parametrize("way, inside", WAYS)
    def test_kill_9_leaves_no_interface(self, site, way, inside):
        before = site.picture()
        site.up("--mode", "tun", "--vip", VIP, "--daemon", inside=inside)
        os.kill(site.pid(), signal.SIGKILL)

        def links() -> list[str]:
            return sorted(link["ifname"] for link in netns.ip_json(site.server, "link", "show"))

        netns.wait_until(lambda: links() == ["eth0", "lo"], 5, "the interface to vanish")
        result = site.realserver("check")
        assert result.returncode == 1 and "no decapsulator runs" in result.stdout
        site.up("--mode", "tun", "--vip", VIP, "--daemon", inside=inside)  # as if nothing had been
        assert "vs-tun0" in links()
        os.kill(site.pid(), signal.SIGKILL)
        netns.wait_until(lambda: links() == ["eth0", "lo"], 5, "the interface to vanish")
        site.down("--mode", "tun", "--vip", VIP)
        assert site.picture() == before

    @needs_root
    def test_two_capabilities_and_no_tun_are_enough(self, site):
        """As in a container with cap_add: [NET_ADMIN, NET_RAW]: the pair's far end can't be hidden, so kill -9 leaves it."""
        capabilities = "--bounding-set=-all,+net_admin,+net_raw"
        inside = (*WITHOUT_TUN[:-2], f'mount --bind /dev/null /dev/net/tun && exec setpriv {capabilities} "$@"', "sh")
        before = site.picture()
        packet = ipv4(GATE, SERVER, IPIP, ipv4(CLIENT, VIP, 17, udp(CLIENT, VIP, 53, b"hello")))
        for _ in range(2):  # the second time over what the first one left
            assert "both ends in this namespace" in site.up("--mode", "tun", "--vip", VIP, "--daemon", inside=inside)
            with site.socket(site.server, socket.AF_INET, socket.SOCK_DGRAM) as service, contextlib.closing(site.wire("back")) as wire:
                service.bind((VIP, 53))
                wire.send(packet)
                assert service.recv(100) == b"hello"
            assert site.counts() == {"delivered": 1}
            killed = netns.Process.of(site.pid())
            killed.signal(signal.SIGKILL)
            netns.wait_until(lambda: not killed.alive(), 5, "the process to end")
        assert {"vs-tun0", "vs-far0"} < {link["ifname"] for link in netns.ip_json(site.server, "link", "show")}
        site.down("--mode", "tun", "--vip", VIP)
        assert site.picture() == before

    def test_firewall_rules_for_the_outer_packets_belong_to_ingress(self, site):
        packet = ipv4(GATE, SERVER, IPIP, ipv4(CLIENT, VIP, 17, udp(CLIENT, VIP, 53, b"hello")))

        def rules(text: str) -> None:
            netns.run([*netns.enter(site.server), "nft", "-f", "-"], input=text)

        site.up("--mode", "tun", "--vip", VIP, "--daemon")
        with site.socket(site.server, socket.AF_INET, socket.SOCK_DGRAM) as service, contextlib.closing(site.wire("back")) as wire:
            service.bind((VIP, 53))
            rules("table inet t { chain c { type filter hook input priority 0; ip protocol 4 drop; }; }")
            wire.send(packet)
            assert service.recv(100) == b"hello", "an input chain is not asked"
            rules("table netdev t { chain c { type filter hook ingress device eth0 priority 0; ip protocol 4 counter drop; }; }")
            netns.wait_until(lambda: "opened in user space" in site.tunnel_line(), 5, "the decapsulator to see the rule")
            wire.send(packet)
            rules("delete table netdev t")
            wire.send(packet)
            assert service.recv(100) == b"hello"
            assert site.counts() == {"delivered": 2}
            rules('table inet u { chain c { type filter hook input priority 0; iifname "vs-tun0" udp dport 53 counter drop; }; }')
            wire.send(packet)
            counted = lambda: "packets 1" in netns.run([*netns.enter(site.server), "nft", "list", "table", "inet", "u"]).stdout  # noqa: E731
            netns.wait_until(counted, 5, "the inner packet in an input chain, by its interface")

    @needs_root
    @pytest.mark.parametrize("outer", (ipv4, ipv6), ids=("outer4", "outer6"))
    @pytest.mark.parametrize("inner", (ipv4, ipv6), ids=("inner4", "inner6"))
    def test_plain_packets_are_opened_in_the_kernel(self, site, outer, inner):
        """The process is stopped: whatever still comes through, came by the kernel."""
        netns.ip(site.gate, "address", "add", f"{GATE6}/64", "dev", "back", "nodad")
        netns.ip(site.server, "address", "add", f"{SERVER6}/64", "dev", "eth0", "nodad")
        vip, client = (VIP, CLIENT) if inner is ipv4 else (VIP6, "fd00:7::1")
        ends = (GATE, SERVER) if outer is ipv4 else (GATE6, SERVER6)
        inside = IPIP if inner is ipv4 else IPV6_IN_IPV4

        def packet(text: bytes) -> bytes:
            return outer(*ends, inside, inner(client, vip, 17, udp(client, vip, 53, text)))

        site.up("--mode", "tun", "--vip", vip, "--daemon")
        if "opened in user space" in (line := site.tunnel_line()):
            pytest.skip(line)
        stopped = netns.Process.of(site.pid())
        family = socket.AF_INET if inner is ipv4 else socket.AF_INET6
        with site.socket(site.server, family, socket.SOCK_DGRAM) as service, contextlib.closing(site.wire("back")) as wire:
            service.bind((vip, 53))
            stopped.signal(signal.SIGSTOP)
            wire.send(packet(b"plain"))
            assert service.recv(100) == b"plain"
            wire.send(packet(b"x" * 40)[:-1])  # its headers promise more: nothing for the kernel's part
            wire.send(packet(b"again"))
            assert service.recv(100) == b"again"
            stopped.signal(signal.SIGCONT)
        counts = site.settled_counts("outer_malformed", 1)
        assert counts == {"delivered": 2, "outer_malformed": 1}

    def test_in_the_foreground_it_ends_with_the_terminal(self, site):
        argv = [*netns.enter(site.server), str(REALSERVER), "up", "--mode", "tun", "--vip", VIP, "--state", str(site.state)]
        running = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        said = ""
        while "decapsulator: PID" not in said:
            line = running.stdout.readline()
            assert line, said
            said += line
        assert f"{VIP}/32 on lo: absent -> present" in said
        running.send_signal(signal.SIGINT)
        rest = running.communicate(timeout=5)[0]
        assert running.returncode == 0 and "decapsulator: ended" in rest
        assert f"{VIP}/32 on lo: present -> absent" in site.down("--mode", "tun", "--vip", VIP)

    def test_a_second_vip_joins_the_running_one_and_leaves_it(self, site):
        other = "10.9.0.101"
        site.up("--mode", "tun", "--vip", VIP, "--daemon")
        pid = site.pid()
        site.up("--mode", "tun", "--vip", other, "--daemon")
        assert site.pid() == pid

        def delivered(*targets: str) -> int:
            before = site.counts()["delivered"]
            with contextlib.closing(site.wire("back")) as wire:
                wire.send(*(ipv4(GATE, SERVER, IPIP, ipv4(CLIENT, t, 17, udp(CLIENT, t, 53, b"x"))) for t in targets))
            netns.wait_until(lambda: sum(site.counts().values()) >= total + len(targets), 5, "the packets")
            return site.counts()["delivered"] - before

        total = 0
        assert delivered(VIP, other) == 2
        site.down("--mode", "tun", "--vip", VIP)
        total = 2
        assert delivered(VIP, other) == 1
        assert site.pid() == pid
        assert "ended" in site.down("--mode", "tun", "--vip", other)


class TestUpAndDown:
    def test_a_vip_is_never_advertised_nor_stands_in_a_question(self, site):
        """IPv6 has no arp_ignore: that a VIP on lo is not answered for is the kernel's way, seen from the other end of the wire."""
        own, vip = "fd00:8::11", "fd00:8::100"
        netns.ip(site.server, "address", "add", f"{own}/64", "dev", "eth0", "nodad")
        netns.ip(site.gate, "address", "add", "fd00:8::254/64", "dev", "back", "nodad")
        with Solicitor(site.gate, "back", "fd00:8::254") as gate:
            site.up("--mode", "dr", "--vip", vip)
            for forwarding in ("0", "1"):
                netns.set_sysctl(site.server, "net.ipv6.conf.all.forwarding", forwarding)
                assert gate.who_answers(vip, before=own) == set()
            with site.socket(site.server, socket.AF_INET6, socket.SOCK_DGRAM) as service:
                service.bind((vip, 53))
                service.sendto(b"answer", ("fd00:8::77", 4000))  # whom nobody knows yet
            asked = gate.next_question("fd00:8::77")
            assert asked.src != vip and asked.src.startswith("fe80::")
            netns.ip(site.server, "address", "add", f"{vip}/128", "dev", "eth0", "nodad")  # and were it there:
            assert gate.who_answers(vip, before=own) == {site.mac(site.server, "eth0")}

    @pytest.mark.parametrize("mode", ["dr", "tun"])
    def test_a_host_that_starts_without_ipv6(self, site, mode):
        """As a container does whose network is IPv4 only: lo gets IPv6, and gives it back."""
        netns.set_sysctl(site.server, "net.ipv6.conf.all.disable_ipv6", "1")
        before = site.picture()
        said = site.up("--mode", mode, "--vip", VIP, "--vip", VIP6, "--daemon")
        assert "net.ipv6.conf.lo.disable_ipv6: 1 -> 0" in said and f"{VIP6}/128 on lo: absent -> present" in said
        if mode == "tun":
            assert netns.get_sysctl(site.server, "net.ipv6.conf.vs-tun0.disable_ipv6") == "0"
        site.down("--mode", mode, "--vip", VIP, "--vip", VIP6)
        assert site.picture() == before

    @pytest.mark.parametrize("mode", ["dr", "tun"])
    def test_down_puts_back_exactly_what_up_changed(self, site, mode):
        netns.set_sysctl(site.server, "net.ipv4.conf.all.arp_announce", "1")
        netns.set_sysctl(site.server, "net.ipv4.conf.all.rp_filter", "1")
        netns.set_sysctl(site.server, "net.ipv4.conf.eth0.rp_filter", "2")
        before = site.picture()
        said = site.up("--mode", mode, "--vip", VIP, "--vip", VIP6, "--daemon")
        for line in ("net.ipv4.conf.all.arp_ignore: 0 -> 1", "net.ipv4.conf.all.arp_announce: 1 -> 2",
                     f"{VIP}/32 on lo: absent -> present", f"{VIP6}/128 on lo: absent -> present"):
            assert line in said
        assert ("net.ipv4.conf.all.rp_filter: 1 -> 0" in said) == (mode == "tun")
        changed = site.picture()
        again = site.up("--mode", mode, "--vip", VIP, "--vip", VIP6, "--daemon")
        assert "->" not in again and site.picture() == changed
        site.down("--mode", mode, "--vip", VIP, "--vip", VIP6)
        assert site.picture() == before
        assert "nothing to put back" in site.down("--mode", mode, "--vip", VIP)

    def test_rp_filter_keeps_its_effect_on_other_interfaces(self, site):
        netns.set_sysctl(site.server, "net.ipv4.conf.all.rp_filter", "1")
        site.up("--mode", "tun", "--vip", VIP, "--daemon")

        def effective(interface: str) -> int:
            return max(int(netns.get_sysctl(site.server, f"net.ipv4.conf.{scope}.rp_filter")) for scope in ("all", interface))

        assert effective("vs-tun0") == 0
        assert effective("eth0") == 1
        netns.ip(site.server, "link", "add", "later", "type", "bridge")
        assert effective("later") == 1

    def test_the_address_stays_while_the_other_mode_needs_it(self, site):
        before = site.picture()
        site.up("--mode", "dr", "--vip", VIP)
        site.up("--mode", "tun", "--vip", VIP, "--daemon")
        said = site.down("--mode", "dr", "--vip", VIP)
        assert "->" not in said
        assert f"{VIP}/32 on lo: present -> absent" in site.down("--mode", "tun", "--vip", VIP)
        assert site.picture() == before

    def test_what_somebody_else_changed_since_is_left_alone(self, site):
        site.up("--mode", "dr", "--vip", VIP)
        netns.set_sysctl(site.server, "net.ipv4.conf.all.arp_ignore", "8")
        assert "net.ipv4.conf.all.arp_ignore: is 8 now" in site.down("--mode", "dr", "--vip", VIP)
        assert netns.get_sysctl(site.server, "net.ipv4.conf.all.arp_ignore") == "8"

    def test_a_failure_undoes_what_was_done_already(self, site):
        before = site.picture()
        result = site.realserver("up", "--mode", "dr", "--vip", VIP, "--vip", SERVER)
        assert result.returncode == 1
        assert f"ip address del {SERVER}/24 dev eth0" in result.stderr
        assert site.picture() == before

    def test_two_namespaces_share_a_state_directory(self, site):
        site.up("--mode", "dr", "--vip", VIP)
        there = [*netns.enter(site.gate), str(REALSERVER)]
        state = ["--state", str(site.state)]
        succeeded(subprocess.run([*there, "up", "--mode", "dr", "--vip", "10.9.0.101", *state], capture_output=True, text=True))
        assert len(list(site.state.glob("*.state"))) == 2
        site.down("--mode", "dr", "--vip", VIP)
        said = succeeded(subprocess.run([*there, "down", "--mode", "dr", "--vip", "10.9.0.101", *state], capture_output=True, text=True))
        assert "10.9.0.101/32 on lo: present -> absent" in said
        assert not list(site.state.glob("*.state"))

    def test_a_file_of_a_namespace_that_is_gone_is_not_believed(self, site):
        """Inode numbers come again, and with them the file's name; what it tells belongs to the namespace that had it."""
        site.up("--mode", "dr", "--vip", VIP)
        file = next(site.state.glob("*.state"))
        foreign = re.sub(r"^namespace \d+", "namespace 1", file.read_text(), flags=re.MULTILINE)
        file.write_text(foreign + "served by another version\n")
        assert "nothing to put back" in site.down("--mode", "dr", "--vip", VIP)
        assert any(address == VIP for _, address, _ in site.picture()["addresses"])

    def test_a_read_only_proc_sys_as_containers_have_it(self, site):
        """Per interface the settings can be made by netlink; what only "all" can do is named with its cure."""
        read_only = ("unshare", "--mount", "sh", "-c",
                     'mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec "$@"', "sh")
        assert "net.ipv4.conf.eth0.arp_ignore: 0 -> 1" in site.up("--mode", "dr", "--vip", VIP, inside=read_only)
        succeeded(site.realserver("check", inside=read_only))
        netns.set_sysctl(site.server, "net.ipv4.conf.all.rp_filter", "1")
        result = site.realserver("up", "--mode", "tun", "--vip", "10.9.0.101", "--daemon", inside=read_only)
        assert result.returncode == 4 and "--sysctl net.ipv4.conf.all.rp_filter=0" in result.stderr


class TestCheck:
    def lines(self, site, *words: str) -> tuple[int, str]:
        result = site.realserver("check", *words)
        assert not result.stderr, result.stderr
        return result.returncode, result.stdout

    @pytest.mark.parametrize("mode", ["dr", "tun"])
    def test_after_up_all_is_well(self, site, mode):
        site.up("--mode", mode, "--vip", VIP, "--daemon")
        code, text = self.lines(site)
        assert code == 0, text
        assert "fix" not in text

    def test_json_is_the_same(self, site):
        site.up("--mode", "dr", "--vip", VIP)
        netns.set_sysctl(site.server, "net.ipv4.conf.all.arp_ignore", "0")
        code, text = self.lines(site)
        json_code, document = self.lines(site, "--json")
        checks = json.loads(document)["checks"]
        assert json_code == code == 1
        rows = [re.fullmatch(r"  (\S+) +(.{13}) (.*)", line) for line in text.splitlines()[1:]]
        words = {"ok": "ok", "fix": "fix", "?": "unknown"}
        assert [(one["verdict"], one["check"], one["text"]) for one in checks] == [(words[row[1]], row[2].strip(), row[3]) for row in rows]
        assert {(one["vip"], one["mode"]) for one in checks} == {(VIP, "dr")}
        assert any(one["check"] == "arp_ignore" and one["verdict"] == "fix" for one in checks)

    def test_it_says_what_to_do_and_that_helps(self, site):
        """Each line's own command makes the line ok."""
        site.up("--mode", "tun", "--vip", VIP, "--daemon")
        for key, bad in (("all.arp_ignore", "0"), ("all.arp_announce", "0"), ("all.rp_filter", "2"), ("vs-tun0.rp_filter", "1")):
            netns.set_sysctl(site.server, f"net.ipv4.conf.{key}", bad)
            code, text = self.lines(site)
            assert code == 1
            cure = re.search(r"fix .*: (sysctl -w \S+)$", text, re.MULTILINE)[1]
            netns.run([*netns.enter(site.server), *cure.split()])
            assert self.lines(site)[0] == 0, cure
        netns.ip(site.server, "address", "del", f"{VIP}/32", "dev", "lo")
        assert f"fix address       not on lo: realserver up --mode tun --vip {VIP}" in self.lines(site)[1]

    def test_two_hosts_answer_for_the_vip(self, site):
        """The gate stands for the director; a second host on the wire has the VIP and answers too."""
        site.up("--mode", "dr", "--vip", "10.8.0.100")
        code, text = self.lines(site)
        assert code == 1 and "nobody answers for 10.8.0.100 on eth0: start the director" in text
        netns.ip(site.gate, "address", "add", "10.8.0.100/32", "dev", "lo")
        code, text = self.lines(site)
        assert code == 1 and f"{site.mac(site.gate, 'back')} alone answers" in text
        assert "which is the director" in text, "and the default route leads to it"
        netns.ip(site.server, "route", "del", "default")
        assert self.lines(site)[0] == 0
        netns.ip(site.gate, "link", "add", "second", "link", "back", "address", "02:00:00:00:0b:ad", "type", "macvlan", "mode", "bridge")
        netns.ip(site.gate, "link", "set", "second", "up")
        code, text = self.lines(site)
        assert code == 1 and "2 hosts answer for 10.8.0.100" in text and "02:00:00:00:0b:ad" in text

    def test_the_way_back_to_a_client(self, site):
        site.up("--mode", "dr", "--vip", VIP)
        assert f"to {CLIENT} by {GATE} on eth0" in self.lines(site, "--client", CLIENT)[1]
        netns.ip(site.server, "route", "replace", "default", "via", "10.8.0.77")
        code, text = self.lines(site)
        assert code == 1 and "10.8.0.77 doesn't answer" in text
        netns.ip(site.server, "route", "del", "default")
        code, text = self.lines(site, "--client", CLIENT)
        assert code == 1 and f"ip route add {CLIENT} via ROUTER" in text
        assert "only clients on this host's own subnets (10.8.0.0/24)" in self.lines(site)[1]

    def test_an_ipv6_vip(self, site):
        netns.ip(site.server, "address", "add", "fd00:8::11/64", "dev", "eth0", "nodad")
        netns.ip(site.gate, "address", "add", "fd00:8::100/64", "dev", "back", "nodad")
        site.up("--mode", "dr", "--vip", "fd00:8::100")
        code, text = self.lines(site)
        assert code == 0 and f"{site.mac(site.gate, 'back')} alone answers for fd00:8::100" in text
        assert "ok  nd" in text
        netns.ip(site.gate, "link", "add", "second", "link", "back", "address", "02:00:00:00:0b:ad", "type", "macvlan", "mode", "bridge")
        netns.ip(site.gate, "address", "add", "fd00:8::100/64", "dev", "second", "nodad")
        netns.ip(site.gate, "link", "set", "second", "up")
        code, text = self.lines(site)
        assert code == 1 and "2 hosts answer for fd00:8::100" in text and "02:00:00:00:0b:ad" in text

    def test_a_proxy_for_an_ipv6_vip_is_found_out_and_its_cure_helps(self, site):
        vip = "fd00:8::100"
        netns.ip(site.server, "address", "add", "fd00:8::11/64", "dev", "eth0", "nodad")
        netns.ip(site.gate, "address", "add", f"{vip}/64", "dev", "back", "nodad")
        site.up("--mode", "dr", "--vip", vip)
        netns.ip(site.server, "-6", "neigh", "add", "proxy", vip, "dev", "eth0")
        assert self.lines(site)[0] == 0, "an entry alone does nothing"
        for key in ("forwarding", "proxy_ndp"):
            netns.set_sysctl(site.server, f"net.ipv6.conf.eth0.{key}", "1")
        code, text = self.lines(site)
        assert code == 1
        cure = re.search(r"fix nd .*: (ip neigh del proxy .*)$", text, re.MULTILINE)[1]
        with Solicitor(site.gate, "back", "fd00:8::254") as gate:
            netns.ip(site.gate, "address", "add", "fd00:8::254/64", "dev", "back", "nodad")
            assert site.mac(site.server, "eth0") in gate.who_answers(vip, within=2), "and it was right"
        netns.run([*netns.enter(site.server), *cure.split()])
        assert self.lines(site)[0] == 0

    def test_a_link_without_ipv6_is_named(self, site):
        site.up("--mode", "dr", "--vip", VIP6)
        netns.set_sysctl(site.server, "net.ipv6.conf.eth0.disable_ipv6", "1")
        code, text = self.lines(site, "--interface", "eth0")
        assert code == 1 and "fix ipv6          off on eth0: sysctl -w net.ipv6.conf.eth0.disable_ipv6=0" in text

    def test_a_vip_nobody_set_up(self, site):
        code, text = self.lines(site, "--vip", VIP)
        assert code == 1 and "not on lo" in text and "sysctl -w net.ipv4.conf.all.arp_ignore=1" in text
        result = site.realserver("check")
        assert result.returncode == 1 and "no VIP is set up here" in result.stderr


class TestPrivileges:
    NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all")

    @pytest.mark.parametrize("words", [("--help",), ("--version",), ("up", "--help")])
    def test_help_needs_none(self, words):
        result = subprocess.run([str(REALSERVER), *words], capture_output=True, text=True, env={})
        assert result.returncode == 0 and "realserver" in result.stdout

    @needs_root
    @pytest.mark.parametrize("command", ["up", "down"])
    def test_what_is_missing_is_named_with_its_cure(self, site, command):
        result = site.realserver(command, "--mode", "dr", "--vip", VIP, inside=self.NOBODY)
        assert result.returncode == 4
        assert "CAP_NET_ADMIN" in result.stderr and "run realserver as root" in result.stderr

    @needs_root
    def test_check_says_what_it_could_not_ask(self, site):
        site.up("--mode", "dr", "--vip", VIP)
        result = site.realserver("check", "--vip", VIP, inside=self.NOBODY)
        assert result.returncode == 4
        assert re.search(r"^  ok  arp_ignore", result.stdout, re.MULTILINE)
        assert re.search(r"^  \?   arp .*CAP_NET_RAW", result.stdout, re.MULTILINE)

    @pytest.mark.parametrize(
        "words, sentence",
        [
            ((), "expected a command"),
            (("sideways",), "unknown command"),
            (("up", "--vip", VIP), "--mode dr or --mode tun is needed"),
            (("up", "--mode", "nat", "--vip", VIP), "expected dr or tun"),
            (("up", "--mode", "dr"), "--vip ADDRESS is needed"),
            (("up", "--mode", "dr", "--vip", "10.9.0"), "expected an address"),
            (("up", "--mode", "dr", "--vip", "127.0.0.1"), "no address a service can have"),
            (("up", "--mode", "dr", "--vip", VIP, "--interface", "nosuch0"), "no such interface"),
        ],
    )
    def test_wrong_words(self, site, words, sentence):
        before = site.picture()
        result = site.realserver(*words)
        assert result.returncode == 2 and sentence in result.stderr and result.stderr.count("\n") == 1
        assert site.picture() == before
