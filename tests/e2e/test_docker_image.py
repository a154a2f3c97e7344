# SPDX-License-Identifier: GPL-2.0-or-later
"""The image by itself, and testbed/docker/compose.yaml: client, director and servers on Docker's own networks."""

import shutil

import pytest

import docker_engine
import netns
from docker_engine import BASE, IMAGE, ROOT, docker, engine_fixture

MEGABYTE = 1 << 20
engine = engine_fixture(docker_engine.engine_with_networks)


def test_the_image_is_small(figure):
    size, base = (int(docker("image", "inspect", "--format", "{{.Size}}", image).stdout) for image in (IMAGE, BASE))
    figure(f"{size / MEGABYTE:.0f} MB, of which the base is {base / MEGABYTE:.0f} MB")
    assert size - base < 60 * MEGABYTE


def test_help_and_version_need_no_capability():
    confined = ["run", "--rm", "--network", "none", "--cap-drop", "ALL", "--user", "65534", "--read-only", IMAGE]
    assert docker(*confined, "--version").stdout.startswith("director ")
    assert "--rules" in docker(*confined, "--help").stdout


def compose(*words: str, check: bool = True):
    plugin = docker("compose", "version", check=False).returncode == 0
    program = ["docker", "compose"] if plugin else ["docker-compose"]
    file = ROOT / "testbed" / "docker" / "compose.yaml"
    return netns.run([*program, "--project-name", "director-test", "--file", str(file), *words], check=check, timeout=180)


@pytest.mark.parametrize("mode", ["nat", "tun", "dr"])
def test_compose_serves_the_client(mode):
    if docker("compose", "version", check=False).returncode != 0 and not shutil.which("docker-compose"):
        pytest.skip("neither `docker compose` nor docker-compose")
    try:
        up = compose("--profile", mode, "up", "--no-build", "--exit-code-from", "client", check=False)
        said = up.stdout + up.stderr
        assert up.returncode == 0, said
        for server in ("server1", "server2"):
            assert said.count(f"{server}      6  ######") == 2, "once for each family"
        assert "the servers saw  10.9.0.1 " in said and "the servers saw  fd00:10:9::1 " in said
    finally:
        compose("--profile", mode, "down", "--timeout", "1")
