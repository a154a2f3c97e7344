# SPDX-License-Identifier: GPL-2.0-or-later
"""The status page in headless Chromium, on the director's own host, in a lab under load. Pictures of it stay in tests/artefacts."""

import re

import pytest

import browser
import netns
import scenarios
from conftest import ARTEFACTS, labs
from tools import Traffic

pytestmark = [labs("nat", "dr", "tun"), pytest.mark.skipif(not browser.is_there(), reason="chromium is not installed")]

ADDRESS = "127.0.0.1:9101"
CAPTURE = False
METHOD = {"nat": "NAT", "dr": "direct", "tun": "tunnel (ipip)"}


@pytest.fixture
def page(lab, tmp_path):
    lab.stop_director()
    lab.start_director("--http", ADDRESS)
    lab.wait_for_service()
    with browser.Browser(netns.enter(lab.namespace("director")), tmp_path / "profile") as opened:
        opened.look_like(1280)
        opened.open(f"http://{ADDRESS}/")
        yield opened


def wait_for(page: browser.Browser, expression: str, what: str, seconds: float = 30):
    return netns.wait_until(lambda: page.value(expression), seconds, what)


def row(page: browser.Browser, service: str, server: str) -> dict[str, str]:
    """A real server's cells by their titles."""
    cells = f"""[...document.querySelectorAll('[data-service="{service}"] [data-server="{server}"] td')]"""
    return dict(page.value(f"{cells}.map(cell => [cell.dataset.name, cell.textContent])"))


def test_the_page_shows_what_happens(lab, page):
    service, port, mode = f"TCP {lab.topology.vip}:80", lab.topology.server_port, lab.options.mode
    servers = [f"{server.ip}:{port}" for server in lab.topology.servers]
    with Traffic(lab) as traffic:
        # Rates are of the last moment, and a busy machine has moments without a request: all that must move is waited for at once.
        rates = f"""[...document.querySelectorAll('[data-service="{service}"] .rate.request-text')]"""
        tiles = "['connections', 'in'].map(tile => document.querySelector(`[data-tile=${tile}] .value`))"
        moving = f"[...{rates}, ...{tiles}].every(rate => /^[0-9.]*[1-9]/.test(rate.textContent))"
        wait_for(page, f"document.querySelectorAll('[data-service]').length === 2 && {moving}", "rates on all arrows and tiles")
        traffic.wait_for(10)

        assert page.texts("#state") == ["live"]
        assert set(page.texts("[data-service] h3")) == {service, f"UDP {lab.topology.vip}:53"}
        for server in servers:
            cells = row(page, service, server)
            assert cells["State"] == "in service" and cells["Method"] == METHOD[mode] and cells["Weight"] == "1"
            assert (cells["Packets out"] == "unseen") == (mode != "nat")
        assert [server in "".join(page.texts(".picture text")) for server in servers] == [True] * 3
        past = page.texts(f'[data-service="{service}"] .past-text')
        assert past == ([] if mode == "nat" else ["replies go straight from server to client, past the director"])

        # Patched, never made anew: what was there is the same node after more answers, and the lines of the sparklines grow.
        page.value("window.noted = [...document.querySelectorAll('[data-server], .picture, .tile')]")
        points = "document.querySelector('[data-tile=connections] .edge').getAttribute('d').split(/[ML]/).length"
        before = page.value(points)
        wait_for(page, f"{points} >= {before} + 3", "three more points in a sparkline")
        assert page.value("window.noted.every(node => node.isConnected)")

        look_at(page, mode)
    assert not traffic.failures
    assert page.complaints == [], "no exception, and nothing that the page's policy forbids"


def look_at(page: browser.Browser, mode: str) -> None:
    """Pictures for people; and no width makes the page scroll sideways."""
    for name, width, scheme, phone in (("light", 1280, "light", False), ("dark", 1280, "dark", False), ("phone", 390, "light", True),
                                       ("phone-dark", 360, "dark", True)):
        page.look_like(width, 844 if phone else 900, scheme, phone)
        wait_for(page, f"matchMedia('(prefers-color-scheme: {scheme})').matches && innerWidth === {width}", f"the look: {name}")
        page.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")
        assert page.value("document.documentElement.scrollWidth <= innerWidth"), f"{name}: wider than the screen"
        page.screenshot(ARTEFACTS / f"status-page-{mode}-{name}.png")
    page.look_like(1280)


def test_states_are_words_and_a_lost_director_is_said_so(lab, page):
    vip, port = lab.topology.vip, lab.topology.server_port
    service, server = f"TCP {vip}:80", f"{lab.topology.servers[0].ip}:{port}"
    pill = f"""document.querySelector('[data-service="{service}"] [data-server="{server}"] .pill')"""
    card = f"""document.querySelector('[data-service="{service}"] summary .pill')"""
    wait_for(page, f"{pill} && {pill}.textContent === 'in service'", "a server in service")
    for weight, words, kind in (("0", "dr", "drain|off"), ("1", "in service", "good")):
        lab.vsadm("-e", "-t", f"{vip}:80", "-r", server, scenarios.METHOD_OPTION[lab.options.mode], "-w", weight)
        wait_for(page, f"{pill}.textContent.startsWith('{words}')", words)
        assert re.search(kind, page.value(f"{pill}.className"))
        wait_for(page, f"{card}.textContent === '{'2 of 3 servers in service' if weight == '0' else 'all 3 servers are in service'}'", "the service's state")

    lab.stop_director()
    wait_for(page, "document.querySelector('#gone').textContent.startsWith(\"The director can't be reached since \")", "word of the loss")
    assert page.texts("#state") == ["out of reach"] and page.value("document.title").startswith("(out of reach)")
    assert page.value("getComputedStyle(document.querySelector('#gone')).display") == "block"
    lab.start_director("--http", ADDRESS)
    wait_for(page, "document.querySelector('#state').textContent === 'live'", "the director's return")
    assert page.value("getComputedStyle(document.querySelector('#gone')).display") == "none"


def test_the_keyboard_is_enough(lab, page):
    wait_for(page, "document.querySelectorAll('[data-service]').length === 2", "the services")
    page.press("/", "Slash", "/")
    assert page.value("document.activeElement.id") == "filter"
    for letter in "udp":
        page.press(letter, f"Key{letter.upper()}", letter)
    assert page.texts("[data-service] h3") == [f"UDP {lab.topology.vip}:53"]
    page.press("Escape")
    assert len(page.texts("[data-service] h3")) == 2
    page.press("p", "KeyP", "p")
    assert page.texts("#pause") == ["Go on"] and page.texts("#state")[0].startswith("paused at ")
    page.press("p", "KeyP", "p")
    wait_for(page, "document.querySelector('#state').textContent === 'live'", "going on")
    visited = []
    page.value("document.querySelector('.skip').focus()")
    for _ in range(12):
        page.press("Tab", "Tab")
        visited.append(page.value("(document.activeElement.className + ' ' + document.activeElement.tagName + ' ' + document.activeElement.id).trim()"))
    assert visited[:2] == ["BUTTON pause", "INPUT filter"] and "SUMMARY" in visited
