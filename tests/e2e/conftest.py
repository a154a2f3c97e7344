# SPDX-License-Identifier: GPL-2.0-or-later
"""Labs as fixtures, and what is kept of them when a test fails.

A module says which labs its tests run in:  pytestmark = labs("dr", devices=("packet", "tap")).
Labs live as long as their module's tests need them: building one takes half a second.
"""

import itertools
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent
ROOT = TESTS.parent
ARTEFACTS = TESTS / "artefacts"
sys.path.insert(0, str(ROOT / "testbed"))
sys.path.insert(0, str(Path(__file__).parent))

import netns  # noqa: E402
import private  # noqa: E402
from cluster import SWITCH, Lab, Options  # noqa: E402

_numbers = itertools.count(1)
_figures: list[str] = []
PRIVATE = private.STAGE in os.environ  # the whole run is without root


def pytest_configure(config):
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    private.prepare()


def pytest_addoption(parser):
    parser.addoption("--echo", action="store_true", help="print every command the labs run (as lab -x)")
    parser.addoption("--keep-labs", action="store_true", help="leave a lab with a failed test running, to look at")


@pytest.fixture(scope="session", autouse=True)
def _echo(request):
    netns.echo = request.config.getoption("--echo")


def has_tun() -> bool:
    return os.access("/dev/net/tun", os.R_OK | os.W_OK)


def cases(*modes: str, **choices) -> list:
    """What in_labs() takes: the cross product of modes and what `choices` lists (devices, offloads, families, ...)."""
    keys = {"families": "family", "devices": "device", "offloads": "offload", "schedulers": "scheduler", "directors": "director",
            "tunnels": "tunnel"}
    names = [keys[key] for key in choices]
    made = []
    for mode in modes:
        for values in itertools.product(*choices.values()):
            wanted = {"mode": mode, **dict(zip(names, values))}
            marks = [pytest.mark.skipif(not has_tun(), reason="/dev/net/tun can't be opened")] if "tap" in values else []
            words = [{"offload": "offload-", "family": "ipv"}.get(name, "") + value for name, value in zip(names, values)]
            made.append(pytest.param(wanted, id="-".join([mode, *words]), marks=marks))
    return made


def in_labs(*lists: list):
    """Parametrises the `lab` fixture."""
    return pytest.mark.parametrize("lab", [case for cases_of in lists for case in cases_of], indirect=True, scope="module")


def labs(*modes: str, **choices):
    return in_labs(cases(*modes, **choices))


def lab_name() -> str:
    return f"t{os.getpid()}-{next(_numbers)}"


def start_capture(lab: Lab) -> None:
    """The first bytes of every frame on every wire of the lab, in two files that take turns at 10 MB each."""
    argv = ["tcpdump", "-i", "any", "-s", "192", "-U", "-Z", "root", "-C", "10", "-W", "2", "-w", str(lab.folder / "wires.pcap")]
    lab.spawn(SWITCH, "tcpdump", argv)
    netns.wait_until(lambda: "listening on" in lab.log_tail(f"{SWITCH} tcpdump"), 5, "tcpdump")


@pytest.fixture(scope="module")
def lab(request):
    wanted = dict(request.param)
    made = Lab(Options(lab_name(), **wanted))
    made.up()
    try:
        # Debian's tcpdump, run by root, gives up its groups, which an ordinary user's namespace forbids: it would end at once.
        if getattr(request.module, "CAPTURE", True) and not PRIVATE:
            start_capture(made)
        yield made
    finally:
        if not (request.config.getoption("--keep-labs") and _failed_in.get(made.name)):
            made.down()


@pytest.fixture
def fresh_lab(request):
    """For tests that damage their lab, or start its director themselves: fresh_lab("dr", director="none")."""
    made = []

    def make(mode: str, **options) -> Lab:
        lab = Lab(Options(lab_name(), mode, **options))
        made.append(lab)
        request.node.fresh_labs = made
        return lab.up()

    yield make
    for lab in made:
        lab.down()


@pytest.fixture
def figure(request):
    """figure("ratio 0.93"): printed at the end of the run."""
    return lambda text: _figures.append(f"{request.node.name}: {text}")


def pytest_terminal_summary(terminalreporter):
    if _figures:
        terminalreporter.section("figures")
        for line in _figures:
            terminalreporter.write_line(line)


# --- what is kept of a failure ---

_failed_in: dict[str, bool] = {}


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if not report.failed:
        return
    used = [*getattr(item, "fresh_labs", []), *([item.funcargs["lab"]] if "lab" in getattr(item, "funcargs", {}) else [])]
    for lab in used:
        if not isinstance(lab, Lab) or not lab.folder.exists():
            continue
        _failed_in[lab.name] = True
        folder = ARTEFACTS / re.sub(r"[^\w.-]+", "_", item.nodeid)
        keep(lab, folder)
        report.sections.append(("this lab again", f"{lab.options.command()}\nkept: {folder.relative_to(ROOT)}"))
        report.sections.append(("director's log", lab.log_tail("director", 20)))


def keep(lab: Lab, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in [*lab.logs.glob("*"), *lab.folder.glob("*.pcap*"), lab.rules_file]:
        if path.exists():
            shutil.copy(path, folder)
    questions = {
        "services.txt": ("director", ["vsadm", "-Ln", "--stats"]),
        "connections.txt": ("director", ["vsadm", "-Lnc"]),
        "reasons.txt": ("director", ["vsadm", "reasons"]),
        "nft.txt": ("director", ["nft", "list", "ruleset"]),
        "neighbours.txt": ("director", ["ip", "neighbour"]),
        "links.txt": ("director", ["ip", "-s", "-d", "address"]),
        "bridge.txt": (SWITCH, ["bridge", "fdb"]),
    }
    for file, (node, command) in questions.items():
        if lab.namespace(node) in netns.namespaces():
            answer = lab.exec(node, command, check=False)
            (folder / file).write_text(answer.stdout + answer.stderr)
