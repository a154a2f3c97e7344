# SPDX-License-Identifier: GPL-2.0-or-later
"""The only module that touches the kernel: namespaces, links, sysctls, processes inside namespaces.

Every change is a plain command (`ip`, `sysctl`, ...) that `lab -x` prints, so that a learner can type it.
It knows nothing of labs: cluster.py says what to make. Nothing here sleeps, except wait_until().
"""

import contextlib
import ctypes
import functools
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

echo = False  # set by `lab -x`: print every command to standard error as it runs

CLONE_NEWNET = 0x40000000  # linux/sched.h
_NAMESPACES = Path("/run/netns")


class CommandFailed(Exception):
    """A command of the lab returned non-zero; says which and what it printed."""

    def __init__(self, argv: list[str], result: subprocess.CompletedProcess):
        self.result = result
        output = (result.stderr or result.stdout or "").strip()
        super().__init__(f"`{shlex.join(argv)}` failed ({result.returncode}): {output or 'no output'}")


class DeadlinePassed(Exception):
    pass


def wait_until(condition, seconds: float, what: str):
    """Polls `condition` until it returns something true, and returns that; raises DeadlinePassed otherwise."""
    deadline = time.monotonic() + seconds
    pause = 0.002
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise DeadlinePassed(f"waited {seconds:g} s in vain for {what}")
        time.sleep(pause)  # the one sleep: wait_until is how everything waits
        pause = min(pause * 1.5, 0.05)
    return value


def _show(argv: list[str]) -> None:
    if echo:
        with contextlib.suppress(BrokenPipeError):  # whoever read it has gone; the work goes on
            print("+ " + shlex.join(argv), file=sys.stderr, flush=True)


_held = _interrupted = False


def interrupted(*_) -> None:
    """The handler of signals that end the lab."""
    global _interrupted
    if not _held:
        raise KeyboardInterrupt
    _interrupted = True


@contextlib.contextmanager
def held_signals():
    """An interruption waits until the block is done: a child that was started in it is then known to who takes it away again."""
    global _held, _interrupted
    if _held or threading.current_thread() is not threading.main_thread():  # handlers run in the main thread only
        yield
        return
    _held = True
    try:
        yield
    finally:
        _held = False
        if _interrupted:
            _interrupted = False
            raise KeyboardInterrupt


def run(argv: list[str], *, check: bool = True, timeout: float = 60, **options) -> subprocess.CompletedProcess:
    _show(argv)
    text = options.pop("input", None)
    stdin = options.pop("stdin", None if text is None else subprocess.PIPE)
    child = None
    try:
        with held_signals():
            child = subprocess.Popen(argv, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
        output, errors = child.communicate(text, timeout)
    except BaseException:
        if child is not None:
            child.kill()
            child.wait()
        raise
    result = subprocess.CompletedProcess(argv, child.returncode, output, errors)
    if check and result.returncode != 0:
        raise CommandFailed(argv, result)
    return result


# --- namespaces ---


@functools.cache
def _root_is_a_mount_point() -> bool:
    with open("/proc/self/mountinfo") as mounts:
        return any(line.split()[4] == "/" for line in mounts)


def enter(namespace: str) -> list[str]:
    """The command prefix that runs something in the namespace."""
    if _root_is_a_mount_point():
        return ["ip", "netns", "exec", namespace]
    # In a chroot iproute2 can't make / a slave mount, and refuses; nsenter does all that is needed of it.
    return ["nsenter", f"--net={_NAMESPACES / namespace}"]


def _ip_in(namespace: str) -> list[str]:
    return ["ip", "-n", namespace] if _root_is_a_mount_point() else [*enter(namespace), "ip"]


def namespaces() -> list[str]:
    return sorted(entry.name for entry in _NAMESPACES.iterdir()) if _NAMESPACES.is_dir() else []


def inode(name: str) -> int:
    """The number programs inside see their namespace by (/proc/self/ns/net)."""
    return (_NAMESPACES / name).stat().st_ino


def add_namespace(name: str) -> None:
    run(["ip", "netns", "add", name])
    ip(name, "link", "set", "lo", "up")


def adopt_namespace(name: str, pid: int) -> None:
    """Gives the network namespace of a running process (a container) a name."""
    run(["ip", "netns", "attach", name, str(pid)])
    ip(name, "link", "set", "lo", "up")


def pids(namespace: str) -> list[int]:
    result = run(["ip", "netns", "pids", namespace], check=False)
    return [int(pid) for pid in result.stdout.split()] if result.returncode == 0 else []


def remove_namespace(name: str) -> None:
    """Ends every process inside and takes the namespace away; its links and nft tables go with it."""
    stop([Process.of(pid) for pid in pids(name)])
    run(["ip", "netns", "del", name])


@contextlib.contextmanager
def inside(namespace: str):
    """Sockets opened in this block belong to the namespace, also after the block."""
    libc = ctypes.CDLL(None, use_errno=True)

    def set_namespace(path: str) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if libc.setns(descriptor, CLONE_NEWNET) != 0:
                error = ctypes.get_errno()
                raise OSError(error, os.strerror(error), path)
        finally:
            os.close(descriptor)

    home = f"/proc/self/fd/{(home_descriptor := os.open('/proc/self/ns/net', os.O_RDONLY | os.O_CLOEXEC))}"
    try:
        set_namespace(str(_NAMESPACES / namespace))
        try:
            yield
        finally:
            set_namespace(home)
    finally:
        os.close(home_descriptor)


# --- links, addresses, sysctls ---


def ip(namespace: str, *words: str) -> None:
    run([*_ip_in(namespace), *words])


def ip_json(namespace: str, *words: str) -> list:
    return json.loads(run([*_ip_in(namespace), "-j", *words]).stdout or "[]")


def add_bridge(namespace: str, name: str) -> None:
    ip(namespace, "link", "add", name, "type", "bridge", "mcast_snooping", "0")
    ip(namespace, "link", "set", name, "up")


def add_veth(namespace: str, interface: str, peer_namespace: str, peer_interface: str, mac: str = "") -> None:
    """Both ends are born where they live: the namespace the lab was started in never sees them."""
    ip(namespace, "link", "add", interface, *(["address", mac] if mac else []), "type", "veth",
       "peer", "name", peer_interface, "netns", peer_namespace)
    ip(namespace, "link", "set", interface, "up")
    ip(peer_namespace, "link", "set", peer_interface, "up")


def set_sysctl(namespace: str, key: str, value: str) -> None:
    run([*enter(namespace), "sysctl", "-qw", f"{key}={value}"])


def get_sysctl(namespace: str, key: str) -> str:
    return run([*enter(namespace), "sysctl", "-n", key]).stdout.strip()


def load_nft(namespace: str, rules: str) -> None:
    """A ruleset as text, in one step."""
    run([*enter(namespace), "nft", "-f", "-"], input=rules)


def nft_counter(namespace: str, family: str, table: str, name: str) -> dict:
    """A named counter: "packets" and "bytes"."""
    answer = json.loads(run([*enter(namespace), "nft", "-j", "list", "counter", family, table, name]).stdout)
    return next(entry["counter"] for entry in answer["nftables"] if "counter" in entry)


def switch_offloads_off(namespace: str, interface: str) -> None:
    """For the tests that prove both ways work; nothing else may call this."""
    run([*enter(namespace), "ethtool", "-K", interface, "tx", "off", "rx", "off", "gso", "off", "gro", "off", "tso", "off"])


def merge_segments(sender: str, interface: str, receiver: str, peer: str) -> None:
    """The receiving end of a veth pair makes super-frames of a burst of segments (GRO), as a network card's driver does.

    A veth does so only when its peer sends segments, and across a burst only when it waits a moment for the next one.
    """
    run([*enter(sender), "ethtool", "-K", interface, "tso", "off"])
    run([*enter(receiver), "ethtool", "-K", peer, "gro", "on"])
    settings = f"/sys/class/net/{peer}"  # of the namespace: `ip netns exec` mounts /sys anew
    run([*enter(receiver), "sh", "-c", f"echo 2000000 > {settings}/gro_flush_timeout; echo 10 > {settings}/napi_defer_hard_irqs"])


# --- processes ---


@dataclass(frozen=True)
class Process:
    """A process we may signal: the PID together with its start time, so that a reused PID is not mistaken for it."""

    pid: int
    started: int  # clock ticks since boot, proc(5) stat field 22; 0: was gone already

    @classmethod
    def of(cls, pid: int) -> "Process":
        return cls(pid, _stat(pid)[1])

    def alive(self) -> bool:
        state, started = _stat(self.pid)
        return started != 0 and started == self.started and state not in "ZX"

    def signal(self, number: int) -> None:
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def _stat(pid: int) -> tuple[str, int]:
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "X", 0
    return words[0], int(words[19])


_children: dict[int, subprocess.Popen] = {}  # ours until reaped


def spawn(namespace: str, argv: list[str], log: Path, env: dict[str, str] | None = None) -> Process:
    """Starts a long-running program in the namespace, output to `log`; it outlives this process."""
    full = [*enter(namespace), *argv]
    _show(full)
    with log.open("ab") as output, held_signals():
        child = subprocess.Popen(full, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, start_new_session=True)
        _children[child.pid] = child
    return Process.of(child.pid)


def exit_code(process: Process) -> int | None:
    """Of a process this Python started; None while it runs or when somebody else started it."""
    child = _children.get(process.pid)
    return child.poll() if child else None


def stop(processes: list[Process], seconds: float = 3) -> None:
    """TERM, and KILL for those still there after `seconds`."""
    me = os.getpid()
    processes = [process for process in processes if process.pid != me]

    def all_gone() -> bool:
        for process in processes:
            exit_code(process)  # reaps what is ours
        return not any(process.alive() for process in processes)

    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            process.signal(number)
        try:
            wait_until(all_gone, seconds, "processes to end")
            return
        except DeadlinePassed:
            if number == signal.SIGKILL:
                raise


def listens(namespace: str, address: str, port: int) -> bool:
    """Whether a TCP connection from inside the namespace is accepted."""
    with inside(namespace), socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.settimeout(1)
        return probe.connect_ex((address, port)) == 0
