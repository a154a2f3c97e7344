# SPDX-License-Identifier: GPL-2.0-or-later
"""--http in a lab under traffic: what Prometheus reads, what a dashboard needs, and what clients that misbehave can't do."""

import contextlib
import http.client
import json
import re
import shutil
import socket
import urllib.parse
from collections import Counter

import pytest

import netns
import scenarios
from cluster import BUILD, ROOT, Lab
from conftest import labs
from tools import Traffic, spread

prometheus_parser = pytest.importorskip("prometheus_client.parser", reason="python3-prometheus-client is not installed")

pytestmark = labs("nat", "dr", "tun")

ADDRESS, PORT = "127.0.0.1", 9101
DASHBOARD = ROOT / "director" / "http" / "grafana.json"


class Site:
    """The director's HTTP, as somebody on its own host sees it."""

    def __init__(self, lab: Lab, port: int = PORT):
        self.lab, self.port = lab, port

    def connect(self) -> socket.socket:
        with netns.inside(self.lab.namespace("director")):
            client = socket.socket()
        client.settimeout(10)
        client.connect((ADDRESS, self.port))
        return client

    def ask(self, path: str, method: str = "GET") -> tuple[int, http.client.HTTPMessage, str]:
        connection = http.client.HTTPConnection(ADDRESS, self.port)
        connection.sock = self.connect()
        with contextlib.closing(connection):
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()

    def json(self, path: str):
        status, headers, body = self.ask(path)
        assert (status, headers["Content-Type"]) == (200, "application/json; charset=utf-8")
        return json.loads(body)

    def metrics(self) -> "Metrics":
        status, headers, body = self.ask("/metrics")
        assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        return Metrics(body)


class Metrics:
    def __init__(self, text: str):
        self.text = text
        self.families = list(prometheus_parser.text_string_to_metric_families(text))
        self.samples = {(sample.name, frozenset(sample.labels.items())): sample.value
                        for family in self.families for sample in family.samples}

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of the samples that have these labels among theirs."""
        found = [value for (sample, pairs), value in self.samples.items() if sample == name and labels.items() <= set(pairs)]
        assert found, f"no {name} {labels}"
        return sum(found)

    def names(self) -> set[str]:
        return {name for name, _ in self.samples}


@pytest.fixture(scope="module")
def site(lab) -> Site:
    """The module's lab with a director that is watched."""
    lab.stop_director()
    lab.start_director("--http", f"{ADDRESS}:{PORT}")
    lab.wait_for_service()
    return Site(lab)


# --- metrics ---


def test_metrics_count_what_happens(lab, site):
    before = site.metrics()
    pages = lab.ask_many(6)
    lab.wait_for_last_replies()
    after = site.metrics()
    mode = lab.options.mode
    vip, port = lab.topology.vip, lab.topology.server_port

    assert after("node_ipvs_connections_total") - before("node_ipvs_connections_total") == 6
    for server in lab.topology.servers:
        labels = {"service": f"TCP {vip}:80", "server": f"{server.ip}:{port}", "method": {"nat": "masq", "tun": "tunnel", "dr": "direct"}[mode]}
        more = [metrics("director_server_connections_total", **labels) for metrics in (before, after)]
        assert more[1] - more[0] == spread(pages)[server.name]
        assert after("director_server_usable", **labels) == 1
    assert (after("node_ipvs_outgoing_packets_total") > 0) == (mode == "nat"), "replies pass the director in NAT only"
    assert after("director_service_incoming_bytes_total", service=f"TCP {vip}:80") > 6 * 200
    assert after("director_connections", protocol="TCP") >= 6
    assert after("director_connection_table_entries") >= 6
    assert after("director_neighbours", state="reachable") >= 1 and after("director_neighbours", state="failed") == 0
    assert after("director_receive_batch_frames_sum") > before("director_receive_batch_frames_sum")
    assert after("director_transmit_batch_frames_count") > before("director_transmit_batch_frames_count")
    assert 0 < after("director_loop_turn_seconds_sum") - before("director_loop_turn_seconds_sum") < 5
    assert after("director_device_up", device="front") == 1
    assert after("process_resident_memory_bytes") > 1 << 20 and after("process_open_fds") > 5

    dropped = after("director_packets_dropped_total", reason="no_server")
    lab.vsadm("-A", "-t", f"{vip}:81", "-s", "rr")  # nobody serves it
    lab.exec("client", ["curl", "-s", "-m", "2", f"http://{vip}:81/"], check=False)
    lab.vsadm("-D", "-t", f"{vip}:81")
    assert site.metrics()("director_packets_dropped_total", reason="no_server") >= dropped
    assert site.metrics()("director_configuration_generation") == after("director_configuration_generation") + 2


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (package prometheus) is not installed")
def test_promtool_finds_nothing_to_say(site):
    answer = netns.run(["promtool", "check", "metrics"], input=site.metrics().text, check=False)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


EXPORTER, EXPORTER_PORT = "/usr/bin/prometheus-node-exporter", 9100


@pytest.mark.skipif(shutil.which(EXPORTER) is None, reason="prometheus-node-exporter is not installed")
def test_the_same_as_node_exporter_says_of_the_mirror(lab, site):
    """All families of its ipvs collector: help, type, labels and values."""
    mirror = lab.folder / "proc"
    lab.stop_director()
    lab.start_director("--http", f"{ADDRESS}:{PORT}", "--proc-dir", str(mirror))
    for words in (["-A", "-f", "7", "-s", "rr"], ["-a", "-f", "7", "-r", lab.topology.servers[0].ip, "-m", "-w", "3"],
                  ["-A", "-u", "[fd00:77::1]:53", "-s", "rr"], ["-a", "-u", "[fd00:77::1]:53", "-r", "[fd00:77::a:b]:53", "-m"]):
        lab.vsadm(*words)
    lab.wait_for_service()
    lab.ask_many(4)
    lab.wait_for_last_replies()
    lab.spawn("director", "exporter", [EXPORTER, "--collector.disable-defaults", "--collector.ipvs", f"--path.procfs={mirror}",
                                       f"--web.listen-address={ADDRESS}:{EXPORTER_PORT}"])
    netns.wait_until(lambda: netns.listens(lab.namespace("director"), ADDRESS, EXPORTER_PORT), 10, "the exporter")

    def ipvs(text: str) -> list:
        return sorted((family.name, family.type, family.documentation, sorted((s.name, sorted(s.labels.items()), s.value) for s in family.samples))
                      for family in prometheus_parser.text_string_to_metric_families(text) if family.name.startswith("node_ipvs_"))

    def theirs() -> list:
        return ipvs(lab.exec("director", ["curl", "-sS", "-m", "5", f"http://{ADDRESS}:{EXPORTER_PORT}/metrics"]).stdout)

    with contextlib.suppress(netns.DeadlinePassed):
        netns.wait_until(lambda: theirs() == ipvs(site.metrics().text), 5, "the mirror to catch up")
    assert ipvs(site.metrics().text) == theirs()
    assert len(theirs()) == 8
    lab.vsadm("-D", "-f", "7")
    lab.vsadm("-D", "-u", "[fd00:77::1]:53")


# --- Prometheus and the dashboard ---


def expressions() -> list[str]:
    """Of all panels, with the dashboard's variables as Grafana fills them in."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    found = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    assert len(found) > 10
    return [text.replace("$instance", ".*").replace("$service", ".*").replace("$__rate_interval", "5s") for text in found]


def test_the_dashboard_uses_names_that_are_there(site):
    names = site.metrics().names()
    for text in expressions():
        used = set(re.findall(r"\b(?:node_ipvs|director|process)_\w+", text))
        assert used and used <= names, f"{text}: {used - names}"


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")
def test_a_prometheus_server_scrapes_and_answers(lab, site, tmp_path):
    configuration = tmp_path / "prometheus.yml"
    configuration.write_text("global: {scrape_interval: 500ms, scrape_timeout: 500ms}\n"
                             f"scrape_configs: [{{job_name: director, static_configs: [{{targets: ['{ADDRESS}:{PORT}']}}]}}]\n")
    server = Site(lab, 9090)
    lab.spawn("director", "prometheus", ["prometheus", f"--config.file={configuration}", f"--storage.tsdb.path={tmp_path}/data",
                                         f"--web.listen-address={ADDRESS}:{server.port}", "--log.level=warn"])
    try:
        netns.wait_until(lambda: _status(server, "/-/ready") == 200, 30, "prometheus")

        def query(text: str) -> list[dict]:
            status, _, body = server.ask("/api/v1/query?query=" + urllib.parse.quote(text))
            assert status == 200, f"{text}: {body}"
            return json.loads(body)["data"]["result"]

        def value(text: str) -> float:
            found = query(text)
            return float(found[0]["value"][1]) if found else 0.0

        netns.wait_until(lambda: value("up") == 1, 20, "the first scrape")
        with Traffic(lab) as traffic:
            netns.wait_until(lambda: value("sum(rate(director_service_connections_total[5s]))") > 0, 20, "a rate of connections")
            assert value("count(director_server_usable == 1)") == 3 * value("director_services")
            assert {sample["metric"]["remote_address"] for sample in query("node_ipvs_backend_weight")} == {s.ip for s in lab.topology.servers}
            silent = [text for text in expressions() if not query(text)]
            assert not silent, "every panel shows something"
        assert not traffic.failures
    finally:
        netns.stop([lab.processes.pop("director prometheus")])


# --- the other pages ---


def test_the_api_says_what_vsadm_says(lab, site):
    lab.ask_many(3)
    lab.wait_for_last_replies()
    services = site.json("/api/services")["services"]
    said = json.loads(lab.vsadm("-Ln", "--json").stdout)["services"]
    for one in (*services, *said):  # rates fade away between the two
        for thing in (one, *one["servers"]):
            thing.pop("rate")
    assert services == said
    connections = site.json("/api/connections?limit=2")
    assert len(connections["connections"]) == 2 and connections["entries"] >= 3
    assert {c["virtual"]["address"] for c in connections["connections"]} == {lab.topology.vip}
    assert {reason["name"] for reason in site.json("/api/reasons")["reasons"]} >= {"none", "runt", "no_server"}
    status = site.json("/api/status")
    assert status["stats"]["connections"] == sum(service["stats"]["connections"] for service in said)
    assert {device["name"] for device in status["devices"]} >= {"front"}
    assert {"address", "device", "state", "mac"} == set(status["neighbours"][0])
    assert sum(row["count"] for row in status["connections"]["states"]) == status["connections"]["entries"]
    assert site.ask("/healthz")[::2] == (200, "ok\n")


def test_the_page_is_whole_and_runs_nothing_else(site):
    status, headers, page = site.ask("/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'; script-src 'sha256-" in policy and "style-src 'sha256-" in policy and "unsafe" not in policy
    assert not re.search(r"""(?:src|href)="?(?:https?:|//)""", page), "nothing from elsewhere"


def test_what_is_not_there_is_said_so(site):
    status, _, words = site.ask("/nothing")
    assert status == 404 and "/metrics" in words and "/api/services" in words
    status, headers, words = site.ask("/metrics", "POST")
    assert status == 405 and headers["Allow"] == "GET, HEAD" and "vsadm" in words
    assert site.ask("/metrics", "HEAD")[::2] == (200, "")
    assert site.ask("/api/connections?limit=many")[0] == 400


# --- bad input ---


def test_clients_that_misbehave_cost_nobody_anything(lab, site):
    """Slow, huge, malformed and many, all at once: packets are forwarded and others are answered meanwhile."""
    with contextlib.ExitStack() as held, Traffic(lab) as traffic:
        for number in range(16):  # a header that never ends
            slow = held.enter_context(site.connect())
            slow.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n" + b"X-%d: y\r\n" % number)
        for _ in range(100):  # opened and left alone, most beyond what one address may have
            held.enter_context(contextlib.closing(site.connect()))
        answers = Counter()
        for request in (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * (1 << 20) + b"\r\n\r\n", b"\x00\xff" * 5000, b"GET\r\n\r\n",
                        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", b"BREW / HTTP/1.1\r\n\r\n", b"\r\n" * 50_000):
            with contextlib.suppress(OSError), site.connect() as rude:  # a reset is an answer, too
                rude.sendall(request)
                rude.shutdown(socket.SHUT_WR)
                answers[rude.recv(12)] += 1
        assert b"HTTP/1.1 200" not in answers
        traffic.wait_for(10)
    assert not traffic.failures
    netns.wait_until(lambda: _status(site, "/healthz") == 200, 10, "an answer after all that")
    assert site.metrics()("process_open_fds") < 60, "their connections are gone"


def _status(site: Site, path: str) -> int:
    """0: there was no answer."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return site.ask(path)[0]
    return 0


def test_a_slow_request_is_let_go(site):
    """A byte now and then is no progress: the whole request has its time, the connection ends after it."""
    with site.connect() as slow:
        slow.settimeout(0.2)

        def ended() -> bool:
            try:
                slow.sendall(b"G")
                return slow.recv(1) == b""
            except TimeoutError:
                return False
            except OSError:
                return True

        netns.wait_until(ended, 20, "the end of a connection that dawdles")


@pytest.mark.parametrize(
    "value, code, words",
    [
        ("9101", 2, "there is no port"),
        ("localhost:9101", 2, "no IP address in numbers"),
        ("127.0.0.1:99999", 2, "a number from 1 to 65535"),
        ("192.0.2.1:9101", 4, "127.0.0.1:9101"),
        (f"{ADDRESS}:{PORT}", 1, "another program listens there"),
    ],
)
def test_a_wrong_address_is_told_in_one_sentence(lab, site, tmp_path, value, code, words):
    device = scenarios.device_options(lab.topology)
    answer = lab.exec("director", ["timeout", "10", str(BUILD / "director"), *device, "--control", str(tmp_path / "sock"), "--http", value],
                      check=False)
    assert answer.returncode == code, answer.stderr
    assert words in answer.stderr and len(answer.stderr.strip().splitlines()) == 1
    assert _status(site, "/healthz") == 200, "the first one goes on"
