# SPDX-License-Identifier: GPL-2.0-or-later
"""`lab doctor`: can this machine run the lab? Tries each thing in a namespace that is thrown away.

And are the labs that run well? That is diagnosis/live.py.
"""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import private
from cluster import BUILD, FAILED, MACHINE, OK, Lab, LabError
from diagnosis import live
from diagnosis.finding import Finding
from screen import say

# Each kernel feature by a command that fails without it.
FEATURES = {
    "network namespaces": "ip netns add doctor",
    "veth": "ip link add veth1 type veth peer name veth2",
    "bridge": "ip link add bridge1 type bridge",
    "nf_tables, netdev family": "nft 'add table netdev doctor; add chain netdev doctor c "
    "{ type filter hook ingress device lo priority 0; }'",
    "nf_tables, inet family": "nft add table inet doctor",
    "IPv6": "sysctl -qw net.ipv6.conf.all.disable_ipv6=0 && ip address add fd00::1/64 dev lo",
    "tun/tap": "ip tuntap add mode tap name tap1",
    "packet sockets": "python3 -c 'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)'",
}
CURES = {
    "network namespaces": "the kernel needs CONFIG_NET_NS; in a container add --cap-add SYS_ADMIN",
    "veth": "modprobe veth",
    "bridge": "modprobe bridge",
    "nf_tables, netdev family": "modprobe nf_tables nf_tables_netdev; or run the director with --guard off",
    "nf_tables, inet family": "modprobe nf_tables; or run the director with --guard off",
    "IPv6": "the kernel was started with ipv6.disable=1, or has none; --family 4 works without",
    "tun/tap": "modprobe tun; without root /dev/net/tun must be open to you. --device packet works without",
    "packet sockets": "modprobe af_packet",
}
OPTIONAL = {"IPv6", "tun/tap"}
PROGRAMS = {"ip": "iproute2", "nft": "nftables", "nginx": "nginx", "curl": "curl", "sysctl": "procps",
            "unshare": "util-linux"}
OPTIONAL_PROGRAMS = {"ethtool": "ethtool (for --offload off)", "tcpdump": "tcpdump (to look at packets)",
                     "dig": "bind9-dnsutils (for the UDP service)", "docker": "docker.io (for --director docker)"}


def examine() -> list[Finding]:
    return [_who(), *_kernel(), *_host(), *_programs(), *_build()]


def _who() -> Finding:
    if not private.needed():
        return Finding("privilege", "ok", "root")
    if why := private.refusal():
        return Finding("privilege", "fail", why)
    return Finding("privilege", "ok", "not root: labs live in private user namespaces")


def _kernel() -> list[Finding]:
    """All features in one throw-away namespace: a line of output for each that works."""
    script = "mount -t tmpfs tmpfs /run || exit 1\n"
    for number, command in enumerate(FEATURES.values()):
        script += f"if {command} >/dev/null 2>&1; then echo {number}; fi\n"
    flags = ["--user", "--map-root-user"] if private.needed() else []
    result = subprocess.run(["unshare", *flags, "--net", "--mount", "sh", "-c", script], capture_output=True, text=True)
    works = {int(word) for word in result.stdout.split()}
    release = os.uname().release
    findings = [Finding("kernel", "ok", release)]
    for number, feature in enumerate(FEATURES):
        if number in works:
            findings.append(Finding(feature, "ok"))
        else:
            findings.append(Finding(feature, "warn" if feature in OPTIONAL else "fail", CURES[feature]))
    return findings


def _host() -> list[Finding]:
    findings = []
    if not Path("/proc/net/ip_vs").exists():
        findings.append(Finding("kernel IPVS", "ok", "absent, and not needed"))
    bridged = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if bridged.exists() and bridged.read_text().strip() == "1":
        note = "bridged frames visit the IP firewall here (br_netfilter); the lab switches that off for its own bridges"
        findings.append(Finding("br_netfilter", "ok", note))
    return findings


def _programs() -> list[Finding]:
    found = []
    for program, package in PROGRAMS.items():
        if shutil.which(program):
            found.append(Finding(program, "ok", shutil.which(program)))
        else:
            found.append(Finding(program, "fail", f"apt-get install {package}"))
    for program, package in OPTIONAL_PROGRAMS.items():
        if not shutil.which(program):
            found.append(Finding(program, "warn", f"not there; apt-get install {package}"))
    return found


def _build() -> list[Finding]:
    found = []
    for program in ("director", "vsadm", "realserver"):
        path = BUILD / program
        if not path.exists():
            found.append(Finding(program, "fail", "not built; testbed/lab up builds it"))
            continue
        version = subprocess.run([path, "--version"], capture_output=True, text=True)
        good = version.returncode == 0
        found.append(Finding(program, "ok" if good else "fail", (version.stdout or version.stderr).strip().split("\n")[0]))
    return found


# --- the labs that run ---


def examine_lab(name: str, myself: list[str]) -> list[Finding]:
    """Without root a lab is looked at from inside: by the same program, which then is asked for JSON."""
    try:
        if not private.needed():
            return live.examine(Lab.load(name))
        answer = private.ask(name, [*myself, "doctor", "--name", name, "--json"])
        return [Finding(**finding) for finding in json.loads(answer.stdout)["labs"][name]]
    except LabError as problem:
        return [Finding("lab", "fail", str(problem))]
    except (ValueError, KeyError):
        return [Finding("lab", "fail", f"can't be looked at: {answer.stderr.strip()}")]


def main(name: str | None, as_json: bool, myself: list[str]) -> int:
    """The machine and all labs, or the one lab. `myself` is how this program is called."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    machine = [] if name else examine()
    if not as_json:
        for finding in machine:
            say(finding.line())
    labs = {}
    for each in [name] if name else Lab.names():
        labs[each] = examine_lab(each, myself)
        if not as_json:
            say(f"\nlab {each}" if machine else f"lab {each}")
            for finding in labs[each]:
                say(finding.line())
    if as_json:
        shown = {"machine": machine, "labs": labs}
        say(json.dumps(shown, default=dataclasses.asdict, indent=1, ensure_ascii=False))
    return _conclude(machine, labs, quiet=as_json)


def _conclude(machine: list[Finding], labs: dict[str, list[Finding]], *, quiet: bool) -> int:
    if bad := _failed(machine):
        print(f"lab: not ready: {', '.join(bad)}", file=sys.stderr)
        return MACHINE
    ill = {name: bad for name, findings in labs.items() if (bad := _failed(findings))}
    for name, bad in ill.items():
        print(f"lab: {name} is not well: {', '.join(bad)}", file=sys.stderr)
    if not labs and not quiet:
        say("ready: testbed/lab demo")
    return FAILED if ill else OK


def _failed(findings: list[Finding]) -> list[str]:
    return list(dict.fromkeys(finding.what for finding in findings if finding.state == "fail"))
