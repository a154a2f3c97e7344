# SPDX-License-Identifier: GPL-2.0-or-later
"""Labs without root: the whole lab lives in a user, network, mount and PID namespace of its own.

`unshare` makes them. For `up` it stays as the lab's keeper, and later commands enter by its PID; when it ends,
however it ends, the kernel takes every process and namespace of the lab along.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import netns
from cluster import MACHINE, LabError, make_run_root, run_root
from netns import Process
from screen import tell

STAGE = "DIRECTOR_LAB_PRIVATE"  # in the environment of everything inside; "new" until the mounts are made
READY = "DIRECTOR_LAB_READY"  # the descriptor that joins `up` outside and inside
_UNSHARE = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]

CAP_NET_ADMIN, CAP_SYS_ADMIN = 12, 21  # linux/capability.h


def needed() -> bool:
    """Whether this process may not make network namespaces by itself."""
    if STAGE in os.environ:
        return False
    with open("/proc/self/status") as status:
        effective = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
    return not (os.geteuid() == 0 and effective >> CAP_NET_ADMIN & 1 and effective >> CAP_SYS_ADMIN & 1)


def refusal() -> str:
    """Why private namespaces can't be had here, with the cure; empty when they can."""
    probe = subprocess.run([*_UNSHARE, "true"], capture_output=True, text=True)
    if probe.returncode == 0:
        return ""
    cures = {
        "/proc/sys/kernel/unprivileged_userns_clone": ("0", "sysctl kernel.unprivileged_userns_clone=1"),
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": (
            "1", "sysctl kernel.apparmor_restrict_unprivileged_userns=0"),
        "/proc/sys/user/max_user_namespaces": ("0", "sysctl user.max_user_namespaces=10000"),
    }
    for file, (bad, cure) in cures.items():
        if Path(file).exists() and Path(file).read_text().strip() == bad:
            return f"this machine gives ordinary users no private namespaces; `sudo {cure}`, or run the lab with sudo"
    return f"this machine gives ordinary users no private namespaces ({probe.stderr.strip()}); run the lab with sudo"


def _environment(**more: str) -> dict[str, str]:
    return {**os.environ, STAGE: "new", "DIRECTOR_LAB_RUN": str(make_run_root()), **more}


def _check() -> None:
    if why := refusal():
        raise LabError(why, MACHINE)
    tell("lab: not root: a private user, network, mount and PID namespace (nothing outside it changes)")


def prepare() -> None:
    """First thing inside: an empty /run for `ip netns`, with the run folder still where it was."""
    if os.environ.get(STAGE) != "new":
        return
    os.environ[STAGE] = "ready"
    if READY in os.environ:
        _take_output()
    folder = os.open(run_root(), os.O_PATH)
    netns.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"])
    run_root().mkdir(parents=True, exist_ok=True)
    netns.run(["mount", "--bind", f"/proc/{os.getpid()}/fd/{folder}", str(run_root())])
    os.close(folder)


def wrap(argv: list[str]) -> tuple[list[str], dict[str, str]]:
    """The command and environment that run a command inside; it must call prepare()."""
    _check()
    return [*_UNSHARE, *argv], _environment()


def run(argv: list[str]) -> int:
    """A command that begins and ends inside one private namespace (`demo`)."""
    command, environment = wrap(argv)
    code = subprocess.run(command, env=environment).returncode
    _remove_if_empty(Path(environment["DIRECTOR_LAB_RUN"]))
    return code


def start(name: str, argv: list[str]) -> int:
    """`up`: returns when the lab runs, leaves its keeper behind."""
    _check()
    if (run_root() / f"{name}.keeper").exists():
        if keeper(name).alive():
            raise LabError(f"lab {name} is there already; `testbed/lab down --name {name}` ends it")
        end(name)
    ours, theirs = socket.socketpair()
    environment = _environment(**{READY: str(theirs.fileno())})
    # A session of its own: Ctrl-C here must not reach into the lab, closing the terminal must not end it.
    # `unshare` stays as long as the lab, so it must not hold our output: what runs inside gets it handed over.
    child = subprocess.Popen([*_UNSHARE, *argv], env=environment, pass_fds=[theirs.fileno()], start_new_session=True,
                             stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    theirs.close()
    process = Process.of(child.pid)
    _keeper_file(name).write_text(json.dumps([process.pid, process.started]))
    try:
        socket.send_fds(ours, [b"out"], [1, 2])
        if ours.recv(1):
            return 0
        code = child.wait()
    except BaseException:
        end(name)
        child.wait()
        raise
    end(name)
    return code


def _take_output() -> None:
    """Inside: writes where the `up` outside does, until stay()."""
    with socket.socket(fileno=os.dup(int(os.environ[READY]))) as channel:
        _, descriptors, _, _ = socket.recv_fds(channel, 16, 2)
    for stream, descriptor in zip((1, 2), descriptors):
        os.dup2(descriptor, stream)
        os.close(descriptor)


def stay() -> None:
    """The rest of the keeper's life inside: PID 1 of the lab, which collects ended processes until it is ended."""
    sys.stdout.flush()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(null, stream)
    with socket.socket(fileno=int(os.environ.pop(READY))) as channel:
        channel.send(b"1")
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    while True:
        try:
            os.wait()
        except ChildProcessError:
            signal.pause()


def _keeper_file(name: str) -> Path:
    return run_root() / f"{name}.keeper"


def keeper(name: str) -> Process:
    try:
        return Process(*json.loads(_keeper_file(name).read_text()))
    except (FileNotFoundError, json.JSONDecodeError):
        raise LabError(f"no lab {name!r} is running; `testbed/lab ls` shows which are") from None


def enter(name: str, argv: list[str]) -> None:
    """Runs the same command inside, in place of this process."""
    command, environment = _inside(name, argv)
    sys.stdout.flush()
    os.execvpe(command[0], command, environment)


def ask(name: str, argv: list[str]) -> subprocess.CompletedProcess:
    """Runs a command inside and takes what it says."""
    command, environment = _inside(name, argv)
    return netns.run(command, check=False, timeout=300, env=environment)


def _inside(name: str, argv: list[str]) -> tuple[list[str], dict[str, str]]:
    """The command and environment that run a command in a lab that is there."""
    process = keeper(name)
    if not process.alive():
        raise LabError(f"lab {name} has lost its keeper; `testbed/lab down --name {name}` clears what is left")
    proc = f"/proc/{process.pid}/ns"
    prefix = ["nsenter", f"--user={proc}/user", f"--net={proc}/net", f"--mount={proc}/mnt",
              f"--pid={proc}/pid_for_children", f"--wd={os.getcwd()}", "--preserve-credentials"]
    return [*prefix, *argv], {**os.environ, STAGE: "ready", "DIRECTOR_LAB_RUN": str(run_root())}


def end(name: str) -> None:
    """Ends the keeper, and with it everything inside."""
    process = keeper(name)
    # PID 1 of a PID namespace ends last: when it is gone, so is every process of the lab. unshare ends after it.
    inner = [Process.of(int(pid)) for pid in _children(process)]
    netns.stop([*inner, process])
    shutil.rmtree(run_root() / name, ignore_errors=True)
    _keeper_file(name).unlink()
    _remove_if_empty(run_root())


def _children(process: Process) -> list[str]:
    try:
        return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        pass  # other labs are in it
