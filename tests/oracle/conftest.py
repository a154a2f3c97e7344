# SPDX-License-Identifier: GPL-2.0-or-later
"""Options of the oracle's tests, and the user-mode kernel they share."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from uml import Oracle, Unavailable  # noqa: E402


def pytest_configure(config):
    os.environ["PATH"] += ":/usr/sbin:/sbin"


def pytest_addoption(parser):
    parser.addoption("--seed", type=int, default=1, help="of the first random script; each later one's is one more")
    parser.addoption("--seconds", type=float, default=60, help="how long random scripts are tried (default 60)")


def pytest_report_header(config):
    return f"oracle: --seed {config.getoption('--seed')} --seconds {config.getoption('--seconds'):g}"


@pytest.fixture(scope="session")
def oracle():
    try:
        made = Oracle().__enter__()
    except Unavailable as why:
        pytest.skip(str(why))
    yield made
    made.__exit__()


_figures: list[str] = []


@pytest.fixture
def figure():
    """figure("12 scripts"): printed at the end of the run."""
    return _figures.append


def pytest_terminal_summary(terminalreporter):
    for line in _figures:
        terminalreporter.write_line(line)
