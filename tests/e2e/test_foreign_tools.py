# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that were written for the kernel's IPVS, as Debian ships them, in front of the director."""

import re
import shutil
import signal

import pytest

import netns
import scenarios
from cluster import BUILD, Lab
from tools import spread

pytestmark = [pytest.mark.parametrize("mode", ["nat", "dr"])]


# --- prometheus-node-exporter reads the mirror of /proc/net ---

EXPORTER = "/usr/bin/prometheus-node-exporter"
EXPORTER_PORT = 9100


class Metrics:
    """What the exporter says, by metric and labels."""

    LINE = re.compile(r"^(node_ipvs_\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)

    def __init__(self, lab: Lab):
        text = lab.exec("director", ["curl", "-sS", "-m", "5", f"http://127.0.0.1:{EXPORTER_PORT}/metrics"]).stdout
        self.values = {}
        for name, labels, value in self.LINE.findall(text):
            pairs = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            server = f"{pairs['remote_address']}:{pairs['remote_port']}" if pairs else ""
            service = f"{pairs['proto']} {pairs['local_address']}:{pairs['local_port']}" if pairs else ""
            self.values[name, service, server] = float(value)

    def total(self, name: str) -> float:
        return self.values[f"node_ipvs_{name}", "", ""]

    def of_server(self, name: str, service: str, server: str) -> float:
        return self.values[f"node_ipvs_{name}", service, server]


@pytest.mark.skipif(shutil.which(EXPORTER) is None, reason="prometheus-node-exporter is not installed")
def test_node_exporter_scrapes_the_mirror(fresh_lab, mode):
    lab = fresh_lab(mode, director="none")
    mirror = lab.folder / "proc"
    lab.start_director("--proc-dir", str(mirror))
    lab.wait_for_service()
    lab.spawn("director", "exporter", [EXPORTER, "--collector.disable-defaults", "--collector.ipvs", f"--path.procfs={mirror}",
                                       f"--web.listen-address=127.0.0.1:{EXPORTER_PORT}"])
    netns.wait_until(lambda: netns.listens(lab.namespace("director"), "127.0.0.1", EXPORTER_PORT), 10, "the exporter")

    vip, port = lab.topology.vip, lab.topology.server_port
    service = f"TCP {vip}:80"
    server = f"{lab.topology.node('server2').ip}:{port}"
    other = f"{lab.topology.node('server1').ip}:{port}"
    lab.vsadm("-e", "-t", f"{vip}:80", "-r", server, scenarios.METHOD_OPTION[mode], "-w", "7")
    lab.ask_many(6)

    def agrees() -> Metrics | None:
        """The exporter's totals are the director's: the mirror has caught up."""
        metrics = Metrics(lab)
        told = (mirror / "net" / "ip_vs_stats").read_text().splitlines()[2].split()
        sums = [0] * 5
        for row in lab.vsadm("-Ln", "--stats", "--exact").stdout.splitlines():
            if re.match(r"(TCP|UDP) ", row):
                sums = [have + int(more) for have, more in zip(sums, row.split()[2:])]
        names = ("connections_total", "incoming_packets_total", "outgoing_packets_total", "incoming_bytes_total", "outgoing_bytes_total")
        same = [int(number, 16) for number in told] == sums == [metrics.total(name) for name in names]
        return metrics if same and metrics.of_server("backend_weight", service, server) == 7 else None

    metrics = netns.wait_until(agrees, 10, "the exporter's totals to be the director's")
    assert metrics.total("connections_total") >= 6
    assert (metrics.total("outgoing_packets_total") > 0) == (mode == "nat"), "replies pass the director in NAT only"
    assert metrics.of_server("backend_weight", service, other) == 1
    rows = lab.vsadm("-Ln", "-t", f"{vip}:80").stdout.splitlines()
    for row in (row.split() for row in rows if row.startswith("  -> ") and "Remote" not in row):
        counts = [metrics.of_server(name, service, row[1]) for name in ("backend_connections_active", "backend_connections_inactive")]
        assert sum(counts) == int(row[4]) + int(row[5]), row

    lab.stop_director(signal.SIGTERM)
    assert not mirror.exists(), "the mirror goes with the director"


# --- ldirectord checks the servers and keeps the table ---

LDIRECTORD = "/usr/sbin/ldirectord"
METHOD = {"nat": "masq", "dr": "gate"}


@pytest.mark.skipif(shutil.which(LDIRECTORD) is None, reason="ldirectord is not installed")
def test_ldirectord_takes_a_dead_server_out_and_puts_it_back(fresh_lab, mode):
    lab = fresh_lab(mode, director="none")
    lab.rules_file.write_text("")
    lab.start_director()
    start_ldirectord(lab, mode)
    port = lab.topology.server_port

    def table() -> set[str]:
        return {row.split()[1] for row in lab.vsadm("-Ln").stdout.splitlines() if row.startswith("  -> 1")}

    everybody = {f"{server.ip}:{port}" for server in lab.topology.servers}
    netns.wait_until(lambda: table() == everybody, 15, "all servers in the table")
    lab.wait_for_service()
    assert set(spread(lab.ask_many(6))) == {"server1", "server2", "server3"}

    dead = lab.topology.node("server2")
    netns.stop([lab.processes.pop("server2 nginx")])  # with its workers
    netns.wait_until(lambda: table() == everybody - {f"{dead.ip}:{port}"}, 15, "server2 out of the table")
    assert set(spread(lab.ask_many(6))) == {"server1", "server3"}

    scratch = lab.folder / "server2"
    lab.spawn("server2", "nginx", ["nginx", "-e", "stderr", "-p", str(scratch), "-c", str(scratch / "nginx.conf")])
    netns.wait_until(lambda: table() == everybody, 15, "server2 in the table again")
    assert set(spread(lab.ask_many(6))) == {"server1", "server2", "server3"}

    # It leaves as it came: on SIGTERM ldirectord takes its services away.
    lab.processes["director ldirectord"].signal(signal.SIGTERM)
    netns.wait_until(lambda: "TCP" not in lab.vsadm("-Ln").stdout, 15, "an empty table")
    assert "ipvsadm" not in lab.log("director ldirectord").read_text(), "no command was refused"


def start_ldirectord(lab: Lab, mode: str) -> None:
    """ldirectord knows one path, /sbin/ipvsadm: in a mount namespace of its own, vsadm is there."""
    vip, port = lab.topology.vip, lab.topology.server_port
    servers = "".join(f"\treal={server.ip}:{port} {METHOD[mode]}\n" for server in lab.topology.servers)
    configuration = lab.folder / f"{lab.name}.cf"  # its PID file is named after it
    configuration.write_text(
        f'checktimeout=2\ncheckinterval=1\nquiescent=no\nautoreload=no\nlogfile="{lab.folder}/ldirectord.log"\nsupervised=yes\n\n'
        f"virtual={vip}:80\n{servers}\tservice=http\n\tscheduler=rr\n\tprotocol=tcp\n\tchecktype=connect\n\tcheckport={port}\n"
    )
    script = f"mount --bind {BUILD}/vsadm /usr/sbin/ipvsadm && exec {LDIRECTORD} {configuration} start"
    lab.spawn("director", "ldirectord", ["unshare", "--mount", "sh", "-c", script])
