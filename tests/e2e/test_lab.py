# SPDX-License-Identifier: GPL-2.0-or-later
"""The `lab` script itself, as a user types it: verbs, exit codes, and that nothing is ever left behind."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest

import cluster
import netns
from conftest import PRIVATE, ROOT, lab_name
from topology import in_family

LAB = str(ROOT / "testbed" / "lab")


def lab(*words: str, check: bool = True, **options) -> subprocess.CompletedProcess:
    result = subprocess.run([LAB, *words], capture_output=True, text=True, timeout=120, **options)
    if check:
        assert result.returncode == 0, result.stdout + result.stderr
    return result


def traces(name: str) -> dict[str, list[str]]:
    """Everything of a lab that could be left: namespaces, files, processes that mention it."""
    processes = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if name in command:
                processes.append(command)
    return {
        "namespaces": [namespace for namespace in netns.namespaces() if namespace.startswith(name)],
        "files": [str(path) for path in cluster.run_root().glob(f"{name}*")],
        "processes": processes,
    }


NOTHING = {"namespaces": [], "files": [], "processes": []}


@pytest.fixture
def name():
    name = lab_name()
    yield name
    lab("down", "--name", name, check=False)


VIPS = {"4": ["10.9.0.100"], "6": ["[fd00:10:9::100]"], "46": ["10.9.0.100", "[fd00:10:9::100]"]}
CLIENTS = {"4": ["10.9.0.1"], "6": ["fd00:10:9::1"], "46": ["10.9.0.1", "fd00:10:9::1"]}


@pytest.mark.parametrize("mode, family", [("nat", "4"), ("tun", "4"), ("dr", "4"), ("dr", "6"), ("nat", "46")])
def test_up_exec_curl_ls_down(name, mode, family):
    lab("up", "--mode", mode, "--name", name, "--family", family)
    for vip, client in zip(VIPS[family], CLIENTS[family]):
        page = json.loads(lab("exec", "--name", name, "client", "--", "curl", "-s", f"http://{vip}/").stdout)
        assert page["mode"] == mode and page["client"] == client
    answers = lab("curl", "--name", name, "-n", str(3 * len(family))).stdout.splitlines()
    assert sorted(line.split()[0] for line in answers) == sorted(["server1", "server2", "server3"] * len(family))
    row = next(line.split() for line in lab("ls").stdout.splitlines() if line.startswith(name))
    assert row == [name, mode, family, "packet", "3", "rr", "on", "native", "up"]
    found = next(one for one in json.loads(lab("ls", "--json").stdout)["labs"] if one["lab"] == name)
    assert found == dict(zip(("lab", "mode", "family", "device", "servers", "scheduler", "offload", "director", "state"), row))
    listing = lab("exec", "--name", name, "director", "--", "vsadm", "-Ln").stdout
    assert all(f"TCP  {vip}:80 rr" in listing for vip in VIPS[family])
    assert "director" in lab("logs", "--name", name, "director").stdout
    lab("down", "--name", name)
    assert traces(name) == NOTHING


def test_exec_hands_on_input_output_and_exit_code(name):
    lab("up", "--mode", "dr", "--name", name)
    answer = lab("exec", "--name", name, "server2", "--", "sh", "-c", "cat; echo err >&2; exit 42", input="in", check=False)
    assert (answer.stdout, answer.stderr, answer.returncode) == ("in", "err\n", 42)
    answer = lab("exec", "--name", name, "server9", "--", "true", check=False)
    assert answer.returncode == 2 and "server9" in answer.stderr and "server3" in answer.stderr
    answer = lab("sh", "--name", name, "server1", input="ip -br address show eth0\n")
    assert "10.9.0.11/24" in answer.stdout


def test_two_labs_side_by_side(name):
    other = lab_name()
    lab("up", "--mode", "dr", "--name", name)
    lab("up", "--mode", "nat", "--name", other, "--servers", "2")
    try:
        for one, mode in ((name, "dr"), (other, "nat")):
            answer = lab("exec", "--name", one, "client", "--", "curl", "-s", "http://10.9.0.100/")
            assert json.loads(answer.stdout)["mode"] == mode
        answer = lab("curl", check=False)
        assert answer.returncode == 2 and "--name" in answer.stderr
    finally:
        lab("down", "--name", other)
    assert traces(other) == NOTHING
    assert "server" in lab("curl", "--name", name).stdout, "the other one is untouched"


def test_a_name_that_is_taken_is_refused(name):
    lab("up", "--mode", "dr", "--name", name)
    answer = lab("up", "--mode", "dr", "--name", name, check=False)
    assert answer.returncode == 1 and "down --name" in answer.stderr
    assert "server" in lab("curl", "--name", name).stdout


def test_what_realserver_wrote_down_goes_with_the_lab(name):
    lab("up", "--mode", "dr", "--name", name)
    written = [Path(f"/run/realserver/net-{netns.inode(f'{name}-server{i}')}.state") for i in (1, 2, 3)]
    assert all(file.exists() for file in written)
    lab("down", "--name", name)
    assert not any(file.exists() for file in written)


@pytest.mark.parametrize("moment", ["ip netns add {name}-client", "{name}-server1", "realserver up", "director --device"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_an_interrupted_up_undoes_itself(name, moment, number):
    """The signal arrives when -x has just shown the command that contains `moment`."""
    wanted = moment.format(name=name)
    up = subprocess.Popen([LAB, "-x", "up", "--mode", "dr", "--name", name], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                          text=True, start_new_session=True)
    for line in up.stderr:
        if wanted in line:
            os.killpg(up.pid, number)
            break
    up.stderr.read()
    assert up.wait(30) != 0
    assert traces(name) == NOTHING


def test_an_up_that_was_killed_is_cleared_by_down(name):
    up = subprocess.Popen([LAB, "-x", "up", "--mode", "nat", "--name", name], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                          text=True)
    for line in up.stderr:
        if "nginx" in line:
            up.kill()
            break
    up.stderr.close()
    up.wait()
    assert traces(name)["namespaces"]
    lab("down", "--name", name)
    assert traces(name) == NOTHING


def test_a_lab_of_another_version_is_listed_and_taken_away(name):
    lab("up", "--mode", "dr", "--name", name)
    file = cluster.run_root() / name / "lab.json"
    state = json.loads(file.read_text())
    state["options"]["an_option_of_tomorrow"] = "on"
    file.write_text(json.dumps(state))
    assert next(line.split()[-1] for line in lab("ls").stdout.splitlines() if line.startswith(name)) == "broken"
    answer = lab("curl", "--name", name, check=False)
    assert answer.returncode == 1 and f"lab down --name {name}" in answer.stderr
    lab("down", "--name", name)
    assert traces(name) == NOTHING


def test_an_up_that_fails_undoes_itself_and_says_why(name):
    answer = lab("up", "--mode", "dr", "--name", name, "--scheduler", "nosuch", check=False)
    assert answer.returncode == 3 and "web.rules:1:1: Scheduler or persistence engine not found" in answer.stderr
    assert traces(name) == NOTHING


@pytest.mark.parametrize(
    "words, code",
    [([], 2), (["frob"], 2), (["up"], 2), (["up", "--mode", "ospf"], 2), (["up", "--mode", "dr", "--servers", "0"], 2),
     (["down", "--name", "nosuch"], 1), (["curl", "--name", "nosuch"], 1), (["--help"], 0), (["up", "--help"], 0)],
    ids=str,
)
def test_exit_codes(words, code):
    assert lab(*words, check=False).returncode == code


def test_x_prints_commands_a_learner_can_type(name):
    shown = lab("-x", "up", "--mode", "nat", "--name", name).stderr
    assert f"+ ip netns add {name}-client" in shown
    assert f"+ ip -n {name}-server1 -4 route add default via 10.9.1.2" in shown


@pytest.mark.parametrize("form", [[], ["--mermaid"], ["--dot"]], ids=str)
@pytest.mark.parametrize("mode", ["nat", "tun", "dr"])
def test_graph_shows_every_node(mode, form):
    picture = lab("graph", "--mode", mode, "--family", "46", *form).stdout
    for word in ("client", "director", "server1", "server2", "server3", "10.9.0.100", "fd00:10:9::100"):
        assert word in picture


@pytest.mark.parametrize(
    "place, address",
    [("10.9.0.1", "fd00:10:9::1"), ("10.9.11.254/24", "fd00:10:9:11::254/64"), ("10.9.0.0/24", "fd00:10:9::/64"),
     ("10.9.0.0/16", "fd00:10:9::/48"), ("default", "default")],
)
def test_a_place_has_the_same_numbers_in_both_families(place, address):
    assert (in_family(place, "4"), in_family(place, "6")) == (place, address)


def test_the_two_families_of_a_lab_reach_its_hosts(name):
    """The set-up alone, without a director: every host has both of its addresses, at once, and serves at both."""
    lab("up", "--mode", "tun", "--family", "46", "--director", "none", "--name", name)
    for url in ("http://10.9.12.11/", "http://[fd00:10:9:12::11]/"):
        page = json.loads(lab("exec", "--name", name, "client", "--", "curl", "-s", "-m", "5", url).stdout)
        assert page["server"] == "server2" and page["to"] == f"{url[7:-1]}:80"
        assert page["client"] in ("10.9.0.1", "fd00:10:9::1") and (":" in page["client"]) == ("[" in url)


def test_trace_prints_marks_or_json_and_draws(name, tmp_path):
    file = tmp_path / "picture.svg"
    lab("up", "--mode", "dr", "--name", name)
    printed = lab("trace", "--name", name, "--svg", str(file)).stdout
    assert "\033" not in printed
    assert "*02:00:0a:09:00:02 director > *02:00:0a:09:00:0" in printed and "as it left client" in printed
    drawn = "".join(xml.parse(file).getroot().itertext())
    for word in ("client", "director", "server", "02:00:0a:09:00:02", "10.9.0.100:80"):
        assert word in drawn
    result = json.loads(lab("trace", "--name", name, "--json", "--packets", "syn,reply").stdout)
    assert [packet["kind"] for packet in result["packets"]] == ["syn", "reply"]
    answer = lab("trace", "--name", name, "--family", "6", check=False)
    assert answer.returncode == 2 and "no IPv6" in answer.stderr


def test_a_request_that_fails_is_traced_to_where_it_ends(name):
    lab("up", "--mode", "dr", "--name", name)
    lab("exec", "--name", name, "director", "--", "vsadm", "-C")
    answer = lab("trace", "--name", name, check=False)
    assert answer.returncode == 1 and "no answer" in answer.stdout
    assert "it was not seen any further than here, at director" in answer.stdout and "SYN+ACK" not in answer.stdout


def test_doctor_finds_this_machine_fit(tmp_path):
    nobodys = {**os.environ, "DIRECTOR_LAB_RUN": str(tmp_path)}  # labs of others are not examined by the way
    assert "✗" not in lab("doctor", env=nobodys).stdout
    machine = json.loads(lab("doctor", "--json", env=nobodys).stdout)["machine"]
    assert {"veth", "nginx", "director"} <= {finding["what"] for finding in machine}
    assert {finding["state"] for finding in machine} <= {"ok", "warn"}


# --- demo: the README's first command ---


def check_demo(printed: str, family: str) -> None:
    each = 4 * len(family)  # pages of each server
    text = re.sub(r"\x1b\[[0-9;]*m", "", printed)
    for method in ("VS/NAT", "VS/TUN", "VS/DR"):
        part = text.split(method, 1)[1]
        assert re.search(rf"server1 █+ {each}   server2 █+ {each}   server3 █+ {each}", part)
        assert f"client seen by the servers as {', '.join(CLIENTS[family])}\n" in part
        through, total = map(int, re.search(r"through the director: (\d+) of (\d+)", part).groups())
        assert total >= 36 * len(family)
        assert through == total if method == "VS/NAT" else through == 0


@pytest.mark.parametrize("family", ["4", "46"])
def test_demo_shows_all_methods_and_leaves_nothing(family):
    before = set(netns.namespaces())
    check_demo(lab("demo", *([] if family == "4" else ["--family", family])).stdout, family)
    assert {namespace for namespace in set(netns.namespaces()) - before if namespace.startswith("demo-")} == set()


# --- without root ---


@pytest.fixture
def as_nobody():
    """Runs the lab as an ordinary user, from a copy that user can read."""
    if PRIVATE:
        pytest.skip("the whole run is without root")
    # Not in pytest's own folder, which every other run of pytest closes to all but its user.
    with tempfile.TemporaryDirectory(prefix="director-nobody-") as place:
        yield _nobody_in(Path(place))


def _nobody_in(folder: Path):
    shutil.copytree(ROOT / "testbed", folder / "testbed")
    build = folder / "build"
    build.mkdir()
    for program in ("director", "vsadm", "realserver"):
        shutil.copy(cluster.BUILD / program, build)
    folder.chmod(0o755)
    home = folder / "home"
    home.mkdir()
    os.chown(home, 65534, 65534)

    def run(*words: str, check: bool = True) -> subprocess.CompletedProcess:
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "XDG_RUNTIME_DIR": str(home), "LANG": "C.UTF-8"}
        result = subprocess.run([str(folder / "testbed" / "lab"), *words], capture_output=True, text=True, timeout=120,
                                env=environment, user=65534, group=65534, extra_groups=[], cwd=home)
        if check:
            assert result.returncode == 0, result.stdout + result.stderr
        return result

    run.home = home
    return run


def processes_of(uid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "status").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            zombie = re.search(r"^State:\s+Z", status, re.MULTILINE)
            if not zombie and int(re.search(r"^Uid:\s+(\d+)", status, re.MULTILINE)[1]) == uid:
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("mode, family", [("nat", "4"), ("tun", "4"), ("dr", "4"), ("nat", "6"), ("tun", "6"), ("dr", "6")])
def test_an_ordinary_user_has_a_lab(as_nobody, mode, family):
    before = set(processes_of(65534))
    as_nobody("up", "--mode", mode, "--name", "mine", "--family", family)
    assert [name for name in netns.namespaces() if name.startswith("mine-")] == [], "private: the host does not see it"
    answers = as_nobody("curl", "-n", "3").stdout.splitlines()
    assert sorted(line.split()[0] for line in answers) == ["server1", "server2", "server3"]
    page = json.loads(as_nobody("exec", "--name", "mine", "client", "--", "curl", "-s", f"http://{VIPS[family][0]}/").stdout)
    assert page["client"] == CLIENTS[family][0]
    assert as_nobody("exec", "client", "--", "false", check=False).returncode == 1
    picture = as_nobody.home / "picture.svg"
    packets = json.loads(as_nobody("trace", "--json", "--svg", str(picture)).stdout)["packets"]
    assert len(packets) == 4 and all(packet["arrived"] for packet in packets)
    picture.unlink()
    if family == "4":
        findings = json.loads(as_nobody("doctor", "--json").stdout)["labs"]["mine"]
        assert len(findings) > 10 and {finding["state"] for finding in findings} == {"ok"}
    assert " up" in as_nobody("ls").stdout
    as_nobody("down", "--name", "mine")
    assert set(processes_of(65534)) <= before
    assert list(as_nobody.home.iterdir()) == []


@pytest.mark.parametrize("family", ["4", "6"])
def test_an_ordinary_user_has_the_demo(as_nobody, family):
    before = set(processes_of(65534))
    check_demo(as_nobody("demo", "--family", family).stdout, family)
    assert set(processes_of(65534)) <= before
    assert list(as_nobody.home.iterdir()) == []


def test_an_ordinary_user_is_told_what_tap_needs(as_nobody):
    if os.stat("/dev/net/tun").st_mode & 0o006 == 0o006:
        pytest.skip("/dev/net/tun is open to everybody here")
    answer = as_nobody("up", "--mode", "dr", "--device", "tap", check=False)
    assert answer.returncode == 4 and "/dev/net/tun" in answer.stderr


def test_the_lab_needs_the_standard_library_only():
    packages = ("bench", "diagnosis", "tracing")
    files = [path for folder in ("", *packages) for path in (ROOT / "testbed" / folder).glob("*.py")]
    names = {path.stem for path in files} | set(packages)
    foreign = set()
    for path in files:
        for match in re.finditer(r"^(?:import|from) (\w+)", path.read_text(), re.MULTILINE):
            if match[1] not in names and match[1] not in sys.stdlib_module_names:
                foreign.add(match[1])
    assert foreign == set()
