#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The first process of the user-mode kernel: runs scripts through its IPVS and writes what happened as capture cases.

Its arguments are on the kernel's command line: oracle_work=FOLDER, a folder of the host, oracle_lib=FOLDER, where wire.py is. One line
on the console, cases' folders below the work folder, is an order; one line is the answer. Each case has a network namespace of its own.
"""

import contextlib
import ctypes
import fcntl
import itertools
import json
import os
import re
import select
import socket
import struct
import subprocess
import sys
import termios
import time
import traceback
import tty
from pathlib import Path

COMMAND_LINE = {}
WORK = Path("/run/work")
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET, RB_POWER_OFF, FINIT_MODULE = 0x40000000, 0x4321FEDC, 313  # sched.h, reboot.h, x86_64 syscall
SOL_PACKET, PACKET_IGNORE_OUTGOING = 263, 23  # linux/if_packet.h
SIOCETHTOOL, SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8946, 0x8913, 0x8914, 1
OFFLOADS = {0x17: "checksums sent", 0x1F: "segmentation", 0x25: "GSO", 0x2C: "GRO"}  # linux/ethtool.h: ETHTOOL_S...
MODULES = ("veth", "ipv6", "ip_vs", *(f"ip_vs_{s}" for s in "rr wrr lc wlc fo ovf lblc lblcr dh sh mh sed nq".split()))
BARRIER = bytes.fromhex("0200fefe")  # how the MAC addresses of our own questions begin


def checked(result: int, what: str) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


# --- the machine ---


def mount(kind: str, where: str, options: str | None = None) -> None:
    checked(libc.mount(b"none", where.encode(), kind.encode(), 0, options.encode() if options else None), f"mount {where}")


def load_modules() -> None:
    base = Path("/usr/lib/uml/modules") / os.uname().release
    needs = {Path(line.split(":")[0]).stem: line.replace(":", "").split() for line in (base / "modules.dep").read_text().splitlines()}
    loaded = set()

    def load(file: str) -> None:
        if file in loaded:
            return
        loaded.add(file)
        with open(base / file, "rb") as module:
            if libc.syscall(FINIT_MODULE, module.fileno(), b"", 0) != 0 and ctypes.get_errno() != 17:  # EEXIST
                raise OSError(ctypes.get_errno(), f"module {file}: {os.strerror(ctypes.get_errno())}")

    for name in MODULES:
        for file in reversed(needs.get(name, ())):
            load(file)


def set_sysctl(name: str, value: int) -> None:
    Path("/proc/sys", *name.split(".")).write_text(f"{value}\n")


# --- a case ---


class Wire:
    """The other end of the director's link: frames in, frames out, with times in microseconds that never repeat."""

    def __init__(self, name: str, sock: socket.socket):
        self.sock = sock
        request = struct.pack("16sH14x", name.encode(), 0)
        flags = struct.unpack("16xH", fcntl.ioctl(sock, SIOCGIFFLAGS, request)[:18])[0]
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sH14x", name.encode(), flags | IFF_UP))
        sock.bind((name, 3))  # ETH_P_ALL
        sock.setblocking(False)
        self.began = time.monotonic_ns()
        self.last = self.asked = 0
        self.into: list[tuple[int, bytes]] = []
        self.out: list[tuple[int, bytes]] = []

    def stamp(self) -> int:
        self.last = max(self.last + 1, (time.monotonic_ns() - self.began) // 1000)
        return self.last

    def send(self, frame: bytes) -> int:
        self.into.append((self.stamp(), frame))
        self.sock.send(frame)
        return len(self.into) - 1

    def receive_for(self, seconds: float) -> list[int]:
        """Everything that comes in that time."""
        deadline, came = time.monotonic() + seconds, []
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self.sock], [], [], left)[0]:
                came += self._take(self.sock.recv(65536))
        return came

    def receive_all(self, address: str) -> list[int]:
        """Everything the frames so far have caused: a question of ours goes behind them, and its answer comes after theirs."""
        me, came, deadline = self._ask(address), [], time.monotonic() + 10
        while True:
            if not select.select([self.sock], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError("the director's ARP is silent")
            frame = self.sock.recv(65536)
            if frame[:6] == me:
                return came
            if frame[:4] != BARRIER:
                came += self._take(frame)

    def wait_until_up(self, address: str) -> None:
        """A new link drops what it is given until its carrier has come through (link_watch.c: up to a second)."""
        for _ in range(200):
            me = self._ask(address)
            while select.select([self.sock], [], [], 0.02)[0]:
                if self.sock.recv(65536)[:6] == me:
                    self.began = time.monotonic_ns()
                    return
        raise TimeoutError("the director's link doesn't come up")

    def _ask(self, address: str) -> bytes:
        self.asked += 1
        me = BARRIER + struct.pack("!H", self.asked)
        self.sock.send(wire.arp_probe(me, address))
        return me

    def _take(self, frame: bytes) -> list[int]:
        self.out.append((self.stamp(), frame))
        return [len(self.out) - 1]


def write_pcap(path: Path, frames: list[tuple[int, bytes]]) -> None:
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for stamp, frame in frames:
            file.write(struct.pack("<IIII", stamp // 1_000_000, stamp % 1_000_000, len(frame), len(frame)) + frame)


def ipvsadm(*words: str, given: str | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(["/sbin/ipvsadm", *words], input=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def prepare_network(case: dict, link: str) -> None:
    """An own network namespace with e0, whose other end `link` is with the first process."""
    checked(libc.unshare(CLONE_NEWNET), "unshare")
    director = case["director"]
    lines = ["link set lo up", f"link add e0 address {director['mac']} mtu {director['mtu']} type veth peer name {link}",
             f"link set {link} netns /proc/1/ns/net"]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for command in OFFLOADS:
            value = ctypes.create_string_buffer(struct.pack("II", command, 0))
            with contextlib.suppress(OSError):  # this kernel's veth hasn't got that one
                fcntl.ioctl(control, SIOCETHTOOL, struct.pack("16sP16x", b"e0", ctypes.addressof(value)))
    set_sysctl("net.ipv6.conf.e0.disable_ipv6", 1)
    for name, value in {**case["host_sysctl"], "net.ipv4.icmp_ratemask": 0, "net.ipv4.conf.e0.rp_filter": 0}.items():
        set_sysctl(name, value)
    lines = ["link set e0 up", f"address add {director['address']} dev e0", *(f"address add {vip}/32 dev e0" for vip in case["vips"]),
             *(f"neighbour add {ip} lladdr {lladdr} nud permanent dev e0" for ip, lladdr in case["neighbours"].items()),
             *(f"route add {route['dst']} via {route['via']}" for route in case["routes"])]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)
    for name, value in case["sysctl"].items():
        set_sysctl(name, value)


class Conversation:
    """Makes frames of what a script says, knowing what the director did with the flow so far."""

    def __init__(self, script: dict):
        self.case, self.flows = script["case"], script["flows"]
        self.macs = {ip: wire.mac(lladdr) for ip, lladdr in self.case["neighbours"].items()}
        self.director, self.ident = wire.mac(self.case["director"]["mac"]), 0
        self.servers = {self.macs[ip] for ip in script["servers"]}
        self.to_server: dict[int, tuple[bytes, wire.Packet]] = {}  # flow: the server's MAC, the last packet it was sent
        self.to_client: dict[int, wire.Packet] = {}

    def note(self, flow: int, frames: list[bytes]) -> None:
        for frame in frames:
            packet = wire.packet_of(frame)
            if packet is None or packet.inner().protocol == wire.ICMP:
                continue
            if frame[:6] in self.servers:
                self.to_server[flow] = (frame[:6], packet)
            elif frame[:6] == self.macs["10.9.0.1"]:
                self.to_client[flow] = packet

    def frames(self, step: dict) -> list[bytes]:
        flow = self.flows[step["flow"]]
        self.ident += 1
        return (self._error if step["op"] == "icmp" else self._packet)(step, flow)

    def _server(self, index: int, flow: dict) -> tuple[bytes, str, int]:
        """Who has the flow, and as whom it speaks; the first server where nobody has it."""
        if index not in self.to_server:
            return self.macs["10.9.0.11"], "10.9.0.11", flow["vport"]
        lladdr, packet = self.to_server[index]
        return lladdr, packet.inner().target, packet.inner().ports[1]

    def _packet(self, step: dict, flow: dict) -> list[bytes]:
        source, target, sport, dport, lladdr = flow["client"], flow["vip"], flow["cport"], flow["vport"], self.macs["10.9.0.1"]
        if step["side"] == "server":
            lladdr, address, port = self._server(step["flow"], flow)
            source, target, sport, dport = address, flow["client"], port, flow["cport"]
        data = bytes(i * 7 % 256 for i in range(step.get("len", 0)))
        wrong = step.get("wrong_checksum", False)
        if flow["protocol"] == "tcp":
            body = wire.tcp(source, target, sport, dport, step["flags"], data, wrong_checksum=wrong)
        else:
            body = wire.udp(source, target, sport, dport, data, wrong_checksum=wrong, no_checksum=step.get("no_checksum", False))
        packet = wire.ipv4(source, target, wire.PROTOCOLS[flow["protocol"]], body[:step.get("cut")], ttl=step.get("ttl", 64), tos=step.get("tos", 0),
                           df=step.get("df", False), ident=self.ident, options=bytes.fromhex(step.get("options", "")))
        pieces = wire.fragments(packet, step["pieces"]) if "pieces" in step else [packet]
        order = step.get("order", range(len(pieces)))
        return [wire.ethernet(self.director, lladdr, wire.IPV4, pieces[i]) for i in order if i < len(pieces)]

    def _error(self, step: dict, flow: dict) -> list[bytes]:
        """About the last packet of the flow that whoever complains has seen, or, where there was none, could have seen."""
        index, side = step["flow"], step["side"]
        protocol = wire.PROTOCOLS[flow["protocol"]]
        body = (wire.tcp if protocol == wire.TCP else lambda *a: wire.udp(*a[:4], a[5]))
        if side == "client":
            source, target, lladdr = step.get("from", flow["client"]), flow["vip"], self.macs["10.9.0.1"]
            about = self.to_client[index].data if index in self.to_client else wire.ipv4(
                flow["vip"], flow["client"], protocol, body(flow["vip"], flow["client"], flow["vport"], flow["cport"], "A", b"reply"), df=True)
        else:
            lladdr, address, port = self._server(index, flow)
            request = self.to_server[index][1] if index in self.to_server else wire.Packet(wire.ipv4(
                flow["client"], address, protocol, body(flow["client"], address, flow["cport"], port, "A", b"request"), df=True))
            if side == "router" and request.protocol == wire.IPIP:
                source, target, lladdr, about = "10.9.0.60", request.source, self.macs["10.9.0.60"], request.data
            else:
                source, target, about = address, flow["client"], request.inner().data
        message = wire.icmp(step["type"], step["code"], step.get("word", 0), about[:step.get("quote", 548)],
                            wrong_checksum=step.get("wrong_checksum", False))
        packet = wire.ipv4(source, target, wire.ICMP, message, ttl=step.get("ttl", 64), tos=0xC0, ident=self.ident)
        return [wire.ethernet(self.director, lladdr, wire.IPV4, packet)]


STATISTICS = 2.1  # seconds until the kernel's counters have reached those it shows (ip_vs_est.c: every two seconds)
WORK_QUEUE = 0.03  # seconds until it has forgotten what is to end now: that is done a tick later (ip_vs_ctl.c, expire_nodest_conn_work)
NOTEWORTHY = 50_000  # microseconds


@contextlib.contextmanager
def alone():
    """No other case does anything meanwhile: a listing is read in pieces from a table that all of them share."""
    with open("/run/alone", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Recording:
    """The steps of a script, done one after another and written down as those of a capture case."""

    def __init__(self, script: dict, end: Wire):
        self.wire, self.talk = end, Conversation(script)
        self.address = script["case"]["director"]["address"].split("/")[0]
        self.steps: list[dict] = []
        self.begun: set[int] = set()  # flows that had a SYN
        self.replayed = 0  # the clock of a replay, which hears of time by frames and sleeps only

    def do(self, step: dict) -> None:
        if step["op"] == "sleep":
            self.let_pass(step["seconds"])
            return
        with alone():
            if step["op"] in ("packet", "icmp"):
                self.exchange(step)
            else:
                self.note_down(step)
        removes = step.get("cmd", "").startswith(("ipvsadm -d", "ipvsadm -D", "ipvsadm -C"))
        # A connection that this ends lives for a tick more: an old one when its port is taken up again, and that of SYN with RST.
        flags = set(step.get("flags", ""))
        ends = "S" in flags and ("R" in flags or step["flow"] in self.begun)
        if "S" in flags:
            self.begun.add(step["flow"])
        if removes or ends:
            self.let_pass(WORK_QUEUE)

    def note_down(self, step: dict) -> None:
        done = {"op": step["op"], **getattr(self, f"do_{step['op']}")(step)}
        if self.wire.stamp() - self.replayed > NOTEWORTHY:  # a program takes its time to start, and speaks of when it ends
            self.tell_time(self.wire.receive_all(self.address))
        self.steps.append(done)

    def exchange(self, step: dict) -> None:
        into = [self.wire.send(frame) for frame in self.talk.frames(step)]
        out = self.wire.receive_all(self.address)
        self.talk.note(step["flow"], [self.wire.out[i][1] for i in out])
        words = " ".join(str(step[key]) for key in ("side", "flags", "type", "code") if key in step)
        self.steps.append({"op": "frame", "from": step["side"][0], "in": into, "out": out, "note": f"flow {step['flow']}: {words}"})
        self.replayed = max(self.replayed, self.wire.into[-1][0])

    def do_admin(self, step: dict) -> dict:
        answer = ipvsadm(*step["cmd"].split()[1:])
        return {"cmd": step["cmd"], "output": answer.stdout, "rc": answer.returncode}

    def do_sysctl(self, step: dict) -> dict:
        set_sysctl(step["name"], step["value"])
        return {"name": step["name"], "value": step["value"]}

    def do_conns(self, _: dict) -> dict:
        return {"rows": sorted(re.sub(" +", " ", line).rstrip() for line in ipvsadm("-L", "-n", "-c").stdout.splitlines()[2:])}

    def do_list(self, _: dict) -> dict:
        return {"rows": ipvsadm("-L", "-n").stdout.splitlines()[3:]}

    def let_pass(self, seconds: float) -> None:
        self.tell_time(self.wire.receive_for(seconds))

    def tell_time(self, out: list[int]) -> None:
        self.steps.append({"op": "sleep", "seconds": (self.wire.stamp() - self.replayed) / 1e6} | ({"out": out} if out else {}))
        self.replayed = self.wire.last

    def write(self, folder: Path) -> None:
        """After the last step: what is there in the end, and everything as files."""
        self.let_pass(STATISTICS)
        with alone():
            connections = ipvsadm("-L", "-n", "-c").stdout.splitlines(keepends=True)
            self.tell_time(self.wire.receive_all(self.address))
        (folder / "conns.txt").write_text("".join(connections[:2] + sorted(connections[2:])))
        for file, words in {"list.txt": "-L -n", "save.txt": "-S -n", "stats.txt": "-L -n --stats --exact"}.items():
            (folder / file).write_text(ipvsadm(*words.split()).stdout)
        write_pcap(folder / "in.pcap", self.wire.into)
        write_pcap(folder / "out.pcap", self.wire.out)
        (folder / "steps.json").write_text("[\n " + ",\n ".join(map(json.dumps, self.steps)) + "\n]\n")


def run_case(folder: Path, link: str) -> None:
    script = json.loads((folder / "script.json").read_text())
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # in the first process's namespace, and stays there
    sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    prepare_network(script["case"], link)
    restored = ipvsadm("-R", given=(folder / "rules").read_text())
    if restored.returncode != 0:
        raise RuntimeError(f"rules: {restored.stdout}")
    end = Wire(link, sock)
    end.wait_until_up(script["case"]["director"]["address"].split("/")[0])
    recording = Recording(script, end)
    for step in script["steps"]:
        recording.do(step)
    recording.write(folder)


def start_case(order: str, number: int) -> int:
    """Runs the case in a process of its own, so that its namespace ends with it."""
    child = os.fork()
    if child == 0:
        try:
            run_case(WORK / order, f"w{number}")
        except BaseException:
            (WORK / order / "error.txt").write_text(traceback.format_exc())
        finally:
            os._exit(0)
    return child


def answer_order(order: str, numbers) -> str:
    """Several cases at once: most of their time is waiting for the kernel's timers."""
    for child in [start_case(word, next(numbers)) for word in order.split()]:
        os.waitpid(child, 0)
    return "done"


def main() -> None:
    mount("proc", "/proc")
    mount("sysfs", "/sys")
    COMMAND_LINE.update(word.split("=", 1) for word in Path("/proc/cmdline").read_text().split() if "=" in word)
    sys.path.insert(0, COMMAND_LINE["oracle_lib"])
    sys.dont_write_bytecode = True
    global wire
    import wire  # before the mounts: the checkout may be in /tmp
    mount("tmpfs", "/run")
    mount("tmpfs", "/tmp")
    WORK.mkdir()
    mount("hostfs", str(WORK), COMMAND_LINE["oracle_work"])
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    load_modules()
    for name in ("all", "default"):
        set_sysctl(f"net.ipv6.conf.{name}.disable_ipv6", 1)
    set_sysctl("kernel.printk", 1)
    line = os.open("/dev/tty1", os.O_RDWR | os.O_NOCTTY)
    tty.setraw(line, termios.TCSANOW)
    with os.fdopen(line, "r+b", buffering=0) as console:
        console.write(b"ready\n")
        numbers = itertools.count(1)
        for order in iter(console.readline, b""):
            if order.strip() == b"end":
                break
            console.write(answer_order(order.decode(), numbers).encode() + b"\n")
    libc.reboot(RB_POWER_OFF)


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        traceback.print_exc()
        libc.reboot(RB_POWER_OFF)
