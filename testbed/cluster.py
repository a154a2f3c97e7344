# SPDX-License-Identifier: GPL-2.0-or-later
"""A lab: a topology brought to life, found again, and taken away without a trace.

A lab called x is the network namespaces x-client, x-director, ... and one run folder. Both the `lab` commands and
the tests under tests/e2e use this class; it knows what to make, netns.py how.
"""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import netns
import scenarios
import servers
from netns import Process
from topology import Link, Node, Topology, in_family

ROOT = Path(__file__).resolve().parent.parent
BUILD = Path(os.environ.get("DIRECTOR_BUILD", ROOT / "build"))
SWITCH = "switch"  # the namespace with the bridges every link ends in
NODE_PATTERN = r"(client|director|router|switch|server\d+)"
LAB_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")

OK, FAILED, USAGE, CONFIGURATION, MACHINE = 0, 1, 2, 3, 4  # exit codes, interface.md section 1


class LabError(Exception):
    """Ends the command with a sentence that names the cure."""

    def __init__(self, message: str, code: int = FAILED):
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Options:
    name: str
    mode: str
    servers: int = 3
    device: str = "packet"
    scheduler: str = "rr"
    offload: str = "on"
    director: str = "native"  # native, docker, or none: the lab without a director
    family: str = "4"  # 4, 6, or 46: both
    tunnel: str = "ipip"  # of tun: one of scenarios.TUNNELS

    def command(self) -> str:
        """What to type to get the same lab again."""
        words = ["testbed/lab", "up", "--mode", self.mode, "--name", self.name]
        for key in ("servers", "device", "scheduler", "offload", "director", "family", "tunnel"):
            if getattr(self, key) != Options.__dataclass_fields__[key].default:
                words += [f"--{key}", str(getattr(self, key))]
        return " ".join(words)


def run_root() -> Path:
    """Where the run folders are. A private lab's namespaces inherit the choice made outside of them."""
    if chosen := os.environ.get("DIRECTOR_LAB_RUN"):
        return Path(chosen)
    if os.geteuid() == 0:
        return Path("/run/director-lab")
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "director-lab"
    return Path(f"/tmp/director-lab-{os.geteuid()}")


def make_run_root() -> Path:
    root = run_root()
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if root.is_symlink() or root.stat().st_uid != os.geteuid():
        raise LabError(f"{root} belongs to somebody else; set XDG_RUNTIME_DIR to a folder of yours", MACHINE)
    return root


@contextlib.contextmanager
def _uninterrupted():
    """Half a clean-up helps nobody: a second Ctrl-C waits."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@dataclass
class Lab:
    options: Options
    processes: dict[str, Process] = field(default_factory=dict)  # by what they are: "director", "server1 nginx"

    # --- finding ---

    @classmethod
    def load(cls, name: str) -> "Lab":
        try:
            state = json.loads((run_root() / name / "lab.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            raise LabError(f"no lab {name!r} is running; `testbed/lab ls` shows which are") from None
        try:
            processes = {what: Process(*process) for what, process in state["processes"].items()}
            return cls(Options(**state["options"]), processes)
        except (KeyError, TypeError):
            raise LabError(f"lab {name} was made by another version of this script; "
                           f"`testbed/lab down --name {name}` takes it away") from None

    @staticmethod
    def names() -> list[str]:
        root = run_root()
        return sorted(entry.name for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []

    @property
    def name(self) -> str:
        return self.options.name

    @property
    def folder(self) -> Path:
        return run_root() / self.name

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def rules_file(self) -> Path:
        return self.folder / "web.rules"

    @property
    def control(self) -> Path:
        return self.folder / "control.sock"

    @property
    def topology(self) -> Topology:
        return scenarios.build(self.options.mode, self.options.servers, self.options.device, self.options.family)

    def namespace(self, node: str) -> str:
        return f"{self.name}-{node}"

    def namespaces(self) -> list[str]:
        pattern = re.compile(re.escape(self.name) + "-" + NODE_PATTERN)
        return [name for name in netns.namespaces() if pattern.fullmatch(name)]

    def _save(self) -> None:
        state = {
            "options": dataclasses.asdict(self.options),
            "processes": {what: dataclasses.astuple(process) for what, process in self.processes.items()},
        }
        fresh = self.folder / "lab.json.new"
        fresh.write_text(json.dumps(state, indent=1))
        fresh.rename(self.folder / "lab.json")

    # --- up and down ---

    def up(self, *, keep_on_failure: bool = False) -> "Lab":
        """Everything, or nothing: what goes wrong on the way, Ctrl-C included, takes back what was made."""
        if not LAB_NAME.fullmatch(self.name):
            raise LabError(f"{self.name!r} is no name for a lab: small letters, digits, - and _, 32 at most", USAGE)
        self._check_machine()
        make_run_root()
        try:
            self.folder.mkdir(mode=0o755)
        except FileExistsError:
            raise LabError(f"lab {self.name} is there already; `testbed/lab down --name {self.name}` ends it") from None
        if clash := self.namespaces():
            self.folder.rmdir()
            raise LabError(f"namespace {clash[0]} exists already, and is not of a lab; choose another --name")
        try:
            self._save()
            self.build_network()
            self.prepare_servers()
            if self.options.director != "none":
                self.start_director()
                self.wait_for_service()
        except BaseException:
            if not keep_on_failure:
                self.down()
            raise
        return self

    def down(self) -> None:
        """Ends what is inside the lab's namespaces and what the lab started, nothing else."""
        with _uninterrupted():
            self._take_away()

    def _take_away(self) -> None:
        if self.options.director == "docker":
            self._remove_containers()
        netns.stop(list(self.processes.values()))
        self._forget_real_servers()
        for namespace in self.namespaces():
            netns.remove_namespace(namespace)
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # other labs are in it
            run_root().rmdir()

    def _forget_real_servers(self) -> None:
        """What `realserver up` wrote down (realserver(8), FILES) goes with the namespaces it was about."""
        for namespace in self.namespaces():
            Path(f"/run/realserver/net-{netns.inode(namespace)}.state").unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # never made, or others are written down in it
            Path("/run/realserver").rmdir()

    def __enter__(self) -> "Lab":
        return self.up()

    def __exit__(self, *_) -> None:
        self.down()

    def _check_machine(self) -> None:
        programs = [*(["director", "vsadm"] if self.options.director == "native" else []),
                    *(["realserver"] if self.options.mode != "nat" else [])]
        for program in programs:
            if not os.access(BUILD / program, os.X_OK):
                raise LabError(f"{BUILD / program} is missing; cmake --preset dev && cmake --build build", MACHINE)
        for program, package in (("ip", "iproute2"), ("nginx", "nginx"), ("curl", "curl"), ("sysctl", "procps")):
            if not shutil.which(program):
                raise LabError(f"{program} is missing; apt-get install {package}", MACHINE)
        if self.options.offload == "off" and not shutil.which("ethtool"):
            raise LabError("--offload off needs ethtool; apt-get install ethtool", MACHINE)
        if self.options.device == "tap":
            try:
                os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
            except OSError as problem:
                raise LabError(
                    f"--device tap needs /dev/net/tun, which can't be opened ({problem.strerror}); "
                    "run as root, or use --device packet",
                    MACHINE,
                ) from None

    # --- the network ---

    def build_network(self) -> None:
        topology = self.topology
        netns.add_namespace(self.namespace(SWITCH))
        if Path("/proc/sys/net/bridge").is_dir():
            # Where br_netfilter is loaded (Docker does), bridged frames would visit the host's IP firewall hooks.
            netns.set_sysctl(self.namespace(SWITCH), "net.bridge.bridge-nf-call-iptables", "0")
        for segment in topology.segments:
            netns.add_bridge(self.namespace(SWITCH), segment.bridge)
        for node in topology.nodes:
            self._add_node(topology, node)

    def _add_node(self, topology: Topology, node: Node) -> None:
        namespace = self.namespace(node.name)
        if node.role == "director" and self.options.director == "docker":
            netns.adopt_namespace(namespace, self._start_pod())
        else:
            netns.add_namespace(namespace)
        if "6" in topology.family:
            self._allow_ipv6(namespace)
        for key, value in node.sysctls.items():
            if "6" in topology.family or not key.startswith("net.ipv6."):
                netns.set_sysctl(namespace, key, value)
        for link in node.links:
            self._add_link(topology, node, link)
        for route in node.routes if not any(link.bridge for link in node.links) else ():
            for family in topology.family:
                netns.ip(namespace, f"-{family}", "route", "add", in_family(route.to, family), "via", in_family(route.via, family))

    @staticmethod
    def _allow_ipv6(namespace: str) -> None:
        """Before there are links: a namespace begins as the machine is, and Docker's begin without IPv6.

        Nobody here has an address twice, and a host that first asks for duplicates (DAD) would be deaf for its first seconds.
        """
        netns.set_sysctl(namespace, "net.ipv6.conf.all.disable_ipv6", "0")
        netns.set_sysctl(namespace, "net.ipv6.conf.default.disable_ipv6", "0")
        for scope in ("all", "default"):  # the larger of `all` and the interface's own holds
            netns.set_sysctl(namespace, f"net.ipv6.conf.{scope}.accept_dad", "0")

    def _add_link(self, topology: Topology, node: Node, link: Link) -> None:
        namespace, switch, port = self.namespace(node.name), self.namespace(SWITCH), topology.port_name(node, link)
        netns.add_veth(namespace, link.interface, switch, port, mac="" if link.bridge else link.mac)
        netns.ip(switch, "link", "set", port, "master", link.segment.bridge)
        if self.options.offload == "off":
            netns.switch_offloads_off(namespace, link.interface)
            netns.switch_offloads_off(switch, port)
        if link.bridge:  # the director's own TAP joins this bridge; the host behind it has no address here
            netns.add_bridge(namespace, link.bridge)
            netns.ip(namespace, "link", "set", link.interface, "master", link.bridge)
        else:
            for address in link.addresses:
                netns.ip(namespace, "address", "add", address, "dev", link.interface)

    # --- real servers ---

    def prepare_servers(self) -> None:
        topology = self.topology
        self.logs.mkdir()
        servers.make_files(self.folder / "files")
        for server in topology.servers:
            self._start_server(topology, server)
        for server in topology.servers:
            self._wait_for_server(topology, server)

    def _start_server(self, topology: Topology, server: Node) -> None:
        addresses = [*server.ips]
        if topology.mode != "nat":
            addresses += topology.vips
            self._prepare_real_server(topology, server)
        scratch = self.folder / server.name
        scratch.mkdir()
        config = scratch / "nginx.conf"
        config.write_text(servers.nginx_config(topology, server, self.folder / "files", scratch))
        self.spawn(server.name, "nginx", ["nginx", "-e", "stderr", "-p", str(scratch), "-c", str(config)])
        program = Path(__file__).with_name("name_server.py")
        self.spawn(server.name, "names", ["python3", str(program), server.name, topology.mode, *addresses])

    def _prepare_real_server(self, topology: Topology, server: Node) -> None:
        up = [str(BUILD / "realserver"), "up", "--mode", topology.mode, "--interface", "eth0"]
        for vip in topology.vips:
            up += ["--vip", vip]
        if topology.mode == "dr":
            self.exec(server.name, up)
            return
        up += scenarios.TUNNELS[self.options.tunnel][1]
        # For a tunnel it may have to stay, as the decapsulator.
        process = self.spawn(server.name, "realserver", up)
        namespace = self.namespace(server.name)

        def has_vips() -> bool:
            if not process.alive() and netns.exit_code(process) not in (0, None):
                raise LabError(f"realserver failed on {server.name}: {self.log_tail(f'{server.name} realserver')}")
            loopback = netns.ip_json(namespace, "address", "show", "dev", "lo")
            return set(topology.vips) <= {address.get("local") for address in loopback[0]["addr_info"]}

        netns.wait_until(has_vips, 10, f"the VIP on {server.name}'s lo")

    def _wait_for_server(self, topology: Topology, server: Node) -> None:
        namespace, nginx = self.namespace(server.name), self.processes[f"{server.name} nginx"]

        def answers() -> bool:
            if not nginx.alive():
                raise LabError(f"nginx ended on {server.name}: {self.log_tail(f'{server.name} nginx')}")
            return all(netns.listens(namespace, ip, topology.server_port) for ip in server.ips)

        netns.wait_until(answers, 10, f"nginx on {server.name}")
        netns.wait_until(lambda: self.log_tail(f"{server.name} names"), 10, f"the name server on {server.name}")

    # --- the director ---

    def director_command(self, *more: str) -> list[str]:
        devices = scenarios.device_options(self.topology)
        return [str(BUILD / "director"), *devices, "--rules", str(self.rules_file), "--control", str(self.control), *more]

    def start_director(self, *more: str) -> Process:
        """Returns when its control socket answers; a director that ends at once is an error with its own words."""
        if not self.rules_file.exists():
            self.rules_file.write_text(scenarios.rules(self.topology, self.options.scheduler, self.options.tunnel))
        if self.options.director == "docker":
            return self._start_container(*more)
        process = self.spawn("director", "", self.director_command(*more))

        def ready() -> bool:
            if not process.alive():
                code = netns.exit_code(process)
                raise LabError(f"the director ended ({code}): {self.log_tail('director')}", code or FAILED)
            return self.vsadm("-Ln", check=False).returncode == 0

        netns.wait_until(ready, 10, "the director's control socket")
        return process

    def stop_director(self, number: int = signal.SIGTERM) -> None:
        process = self.processes.pop("director")
        process.signal(number)
        netns.stop([process])
        self._save()

    def reload(self) -> None:
        self.processes["director"].signal(signal.SIGHUP)

    def vsadm(self, *words: str, check: bool = True, **options) -> subprocess.CompletedProcess:
        return self.exec("director", [str(BUILD / "vsadm"), *words], check=check, **options)

    def wait_for_service(self, seconds: float = 10) -> None:
        """Until the client's curl gets a page from every VIP."""
        for url in self.topology.urls:
            self.wait_for(url, seconds)

    def wait_for(self, url: str, seconds: float = 10) -> None:
        """Until the client's curl gets a page from there."""

        def served() -> bool:
            answer = self.exec("client", ["curl", "-s", "-m", "2", "-o", os.devnull, url], check=False)
            return answer.returncode == 0

        try:
            netns.wait_until(served, seconds, f"a page from {url}")
        except netns.DeadlinePassed:
            raise LabError(f"no page from {url} within {seconds:g} s; the director says: {self.log_tail('director')}") from None

    # --- the director in a container: its network namespace is that of a container that only waits ---

    @property
    def container(self) -> str:
        return f"director-lab-{self.name}"

    @property
    def image(self) -> str:
        return os.environ.get("DIRECTOR_IMAGE", "director")

    def _start_pod(self) -> int:
        netns.run(["docker", "run", "--detach", "--name", f"{self.container}-pod", "--network", "none",
                   "--entrypoint", "sleep", self.image, "infinity"])  # sleep: the container that only waits
        state = netns.run(["docker", "inspect", "--format", "{{.State.Pid}}", f"{self.container}-pod"])
        return int(state.stdout)

    def _start_container(self, *more: str) -> Process:
        command = self.director_command(*more)
        tun = ["--device", "/dev/net/tun"] if self.options.device == "tap" else []
        netns.run(["docker", "run", "--detach", "--name", self.container, "--network", f"container:{self.container}-pod",
                   "--cap-drop", "ALL", "--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW", *tun,
                   "--read-only", "--security-opt", "no-new-privileges",
                   "--volume", f"{self.folder}:{self.folder}", self.image, *command[1:]])
        state = netns.run(["docker", "inspect", "--format", "{{.State.Pid}}", self.container])
        process = Process.of(int(state.stdout))
        self.processes["director"] = process
        self._save()

        def ready() -> bool:
            if not process.alive():
                words = netns.run(["docker", "logs", self.container], check=False)
                raise LabError(f"the director's container ended: {(words.stdout + words.stderr).strip()}")
            return self.vsadm("-Ln", check=False).returncode == 0

        netns.wait_until(ready, 20, "the director's control socket")
        return process

    def _remove_containers(self) -> None:
        for container in (self.container, f"{self.container}-pod"):
            netns.run(["docker", "rm", "--force", container], check=False)

    # --- commands inside ---

    def environment(self) -> dict[str, str]:
        path = f"{BUILD}:{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"
        return {**os.environ, "PATH": path, "DIRECTOR_CONTROL": str(self.control), "LAB": self.name}

    def exec(self, node: str, argv: list[str], *, check: bool = True, **options) -> subprocess.CompletedProcess:
        options.setdefault("env", self.environment())
        return netns.run([*netns.enter(self.namespace(node)), *argv], check=check, **options)

    def spawn(self, node: str, what: str, argv: list[str]) -> Process:
        name = f"{node} {what}".strip()
        with netns.held_signals():
            process = netns.spawn(self.namespace(node), argv, self.log(name), self.environment())
            self.processes[name] = process
            self._save()
        return process

    def log(self, what: str) -> Path:
        return self.logs / f"{what.replace(' ', '-')}.log"

    def log_tail(self, what: str, lines: int = 5) -> str:
        with contextlib.suppress(FileNotFoundError):
            return "\n".join(self.log(what).read_text(errors="replace").splitlines()[-lines:])
        return ""

    def ask(self, url: str = "", *more: str) -> dict:
        """One page, fetched by the client's curl."""
        answer = self.exec("client", ["curl", "-sS", "-m", "10", *more, url or self.topology.url])
        return json.loads(answer.stdout)

    def ask_many(self, count: int) -> list[dict]:
        return [self.ask() for _ in range(count)]

    def wait_for_last_replies(self) -> None:
        """curl ends before its connection does: the server's FIN is the last frame of a reply, and leads to TIME-WAIT."""

        def all_closed() -> bool:
            sockets = self.exec("client", ["ss", "-Htan"]).stdout.splitlines()
            return all(line.split()[0] in ("TIME-WAIT", "LISTEN") for line in sockets)

        netns.wait_until(all_closed, 10, "the servers' last words")
