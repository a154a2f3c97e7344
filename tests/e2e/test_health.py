# SPDX-License-Identifier: GPL-2.0-or-later
"""Health checks in the lab: a server that dies is taken out, and comes back; told by the log, the metrics and the status page's JSON.

Checks go the way of the clients' packets: in DR and TUN a server that is well but has no virtual address fails.
"""

import json

import pytest

import netns
from conftest import labs
from scenarios import METHOD_OPTION
from test_log import wait_for

VIP = "10.9.0.100:80"


def with_checks(lab, check: str = "http:/") -> dict[str, str]:
    """Every server of the lab is checked; by name, its endpoint in the table."""
    endpoints = {}
    for server in lab.topology.servers:
        endpoints[server.name] = f"{server.ip}:{lab.topology.server_port}"
        lab.vsadm("-e", "-t", VIP, "-r", endpoints[server.name], METHOD_OPTION[lab.options.mode], "--check", check, "--inter", "200ms", "--fall", "2", "--rise", "2")
    return endpoints


def check_of(lab, endpoint: str) -> dict:
    services = json.loads(lab.vsadm("-Ln", "--json").stdout)["services"]
    address, port = endpoint.rsplit(":", 1)
    return next(server["check"] for service in services for server in service["servers"]
                if server["address"] == address and server["port"] == int(port) and "check" in server)


def until(lab, endpoint: str, state: str, says: str) -> None:
    netns.wait_until(lambda: (now := check_of(lab, endpoint))["state"] == state and now["says"] == says, 15, f"{endpoint} {state}: {says}")


@labs("nat", "tun", "dr", devices=("packet", "tap"))
class TestHealth:
    def test_a_well_server_passes(self, lab):
        for endpoint in with_checks(lab).values():
            netns.wait_until(lambda: check_of(lab, endpoint)["passes"] >= 3, 15, f"{endpoint} passes")
            assert check_of(lab, endpoint) | {"passes": 0} == {"asks": "http:/", "state": "well", "says": "answers 200", "passes": 0, "failures": 0}

    def test_a_status_of_trouble_takes_them_out_and_clients_are_told(self, lab):
        for endpoint in with_checks(lab, "http:/no-such-page").values():
            until(lab, endpoint, "failed", "answers 404")
        refused = lab.exec("client", ["curl", "-s", "-m", "2", f"http://{VIP}/"], check=False)
        assert refused.returncode == 7, "refused at once: no server is left"
        for endpoint in with_checks(lab).values():
            until(lab, endpoint, "well", "answers 200")
        assert lab.ask_many(6)

    def test_the_hosts_stack_takes_no_part(self, lab):
        """Of a packet device's host: the answers come to its address, and it knows nothing of the connection; it would reset it."""

        def resets() -> int:
            return int(lab.exec("director", ["nstat", "-azs", "TcpOutRsts"]).stdout.split("TcpOutRsts")[1].split()[0])

        before = resets()
        for endpoint in with_checks(lab).values():
            passed = check_of(lab, endpoint)["passes"]
            netns.wait_until(lambda: check_of(lab, endpoint)["passes"] >= passed + 3, 15, f"{endpoint} passes")
        assert resets() == before


@pytest.mark.parametrize("mode", METHOD_OPTION)
def test_a_server_dies_and_returns(mode, fresh_lab):
    lab = fresh_lab(mode, director="none")
    lab.start_director("--http", "127.0.0.1:9101")
    endpoints = with_checks(lab)
    address, port = endpoints["server2"].rsplit(":", 1)
    where = f"[{address}]:tcp:{port}"

    def metric(name: str, *labels: str) -> float:
        text = lab.exec("director", ["curl", "-s", "http://127.0.0.1:9101/metrics"]).stdout
        rows = [line for line in text.splitlines() if line.startswith(name + "{") and all(label in line for label in (f'server="{address}:{port}"', *labels))]
        assert len(rows) == 1, text
        return float(rows[0].rsplit(" ", 1)[1])

    netns.wait_until(lambda: metric("director_server_checks_total", 'result="passed"') > 0, 15, "a check that passed")
    assert metric("director_server_healthy") == 1
    netns.stop([lab.processes.pop("server2 nginx")])
    line = wait_for(lab, f"Removing service {where} from VS [10.9.0.100]:tcp:80", check="http:/", says="refuses connections")
    assert line["level"] == "warning"
    assert metric("director_server_healthy") == 0 and metric("director_server_checks_total", 'result="failed"') >= 2
    assert "server2" not in {answer["server"] for answer in lab.ask_many(6)}

    scratch = lab.folder / "server2"
    lab.spawn("server2", "nginx", ["nginx", "-e", "stderr", "-p", str(scratch), "-c", str(scratch / "nginx.conf")])
    wait_for(lab, f"Adding service {where} to VS [10.9.0.100]:tcp:80", says="answers 200")
    assert "server2" in {answer["server"] for answer in lab.ask_many(6)}


@pytest.mark.parametrize("mode", ["dr", "tun"])
def test_a_server_without_the_virtual_address_fails(mode, fresh_lab):
    """It answers at its own address: who asks there would call it well, and its clients would wait for ever."""
    lab = fresh_lab(mode)
    endpoint = with_checks(lab)["server3"]
    until(lab, endpoint, "well", "answers 200")
    lab.exec("server3", ["ip", "address", "del", "10.9.0.100/32", "dev", "lo"])
    netns.wait_until(lambda: check_of(lab, endpoint)["state"] == "failed", 15, "server3 out")
    assert lab.exec("server3", ["curl", "-s", "-m", "2", f"http://{lab.topology.node('server3').ip}/"]).returncode == 0
    lab.exec("server3", ["ip", "address", "add", "10.9.0.100/32", "dev", "lo"])
    until(lab, endpoint, "well", "answers 200")


def test_in_ipv6_too(fresh_lab):
    lab = fresh_lab("dr", family="6")
    server = lab.topology.servers[0]
    lab.vsadm("-e", "-t", "[fd00:10:9::100]:80", "-r", f"[{server.ip}]:80", "-g", "--check", "http:/", "--inter", "200ms")
    netns.wait_until(lambda: '"answers 200"' in lab.vsadm("-Ln", "--json").stdout, 15, "a check that passes")
