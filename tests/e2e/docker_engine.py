# SPDX-License-Identifier: GPL-2.0-or-later
"""A container engine for test_docker_*.py: the one that answers, or a dockerd of our own that changes nothing on this host.

Ours keeps its images in build/docker, so that a second run builds nothing; it is ended by its PID.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import netns
import private

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "build" / "docker"
BASE = "debian:bookworm-slim"  # what both Dockerfiles start from
IMAGE, NODE_IMAGE = "director-test", "director-node-test"
NETNS = f"director-docker-{os.getpid()}"
# No bridge, no firewall rule, no sysctl: containers have the network they are put into, or that of this host (builds).
NOTHING_OF_THE_HOSTS = ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"]


class NoEngine(Exception):
    """Why no engine can run here."""


def docker(*words: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess:
    # The classic builder: buildx is a package of its own, which not every docker comes with.
    return netns.run(["docker", *words], check=check, timeout=timeout, env={**os.environ, "DOCKER_BUILDKIT": "0"})


def answers() -> bool:
    return docker("info", check=False).returncode == 0


def require_engine() -> None:
    """Raises NoEngine where none answers and none of ours could."""
    if not shutil.which("docker"):
        raise NoEngine("no container engine: no docker")
    if private.STAGE in os.environ:
        raise NoEngine("no container engine: a lab with containers takes root")
    if answers():
        return
    if os.geteuid() != 0:
        raise NoEngine("no container engine: none answers, and starting one takes root")
    for program in ("dockerd", "mmdebstrap"):
        if not shutil.which(program):
            raise NoEngine(f"no container engine: none answers, and {program} is missing")


def tell(text: str) -> None:
    print(f"docker: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def dockerd(*options: str, inside: str = ""):
    """A dockerd of our own, in the network namespace `inside` if that is named, until the block ends."""
    place = Path(tempfile.mkdtemp(prefix="director-docker-", dir="/run"))
    DATA.mkdir(parents=True, exist_ok=True)
    # Not `ip netns exec`: that would cover /sys/fs/cgroup.
    enter = ["nsenter", f"--net=/run/netns/{inside}"] if inside else []
    address = f"unix://{place}/docker.sock"
    with (place / "log").open("w") as log:
        process = subprocess.Popen(
            [*enter, "dockerd", f"--data-root={DATA}", f"--exec-root={place}/exec", f"--host={address}",
             f"--pidfile={place}/pid", *options],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    os.environ["DOCKER_HOST"] = address

    def ready() -> bool:
        if process.poll() is not None:
            words = (place / "log").read_text().splitlines()[-3:]
            raise NoEngine(f"no container engine: dockerd ended with {process.returncode}: {' / '.join(words)}")
        return answers()

    try:
        netns.wait_until(ready, 30, "dockerd's answer")
        yield
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=30)
        del os.environ["DOCKER_HOST"]
        with open("/proc/self/mounts") as mounts:  # dockerd leaves the network namespaces it pinned
            pinned = [words[1] for line in mounts if (words := line.split())[1].startswith(f"{place}/")]
        for mount in pinned:
            netns.run(["umount", mount])
        shutil.rmtree(place)


@contextlib.contextmanager
def _images_chosen():
    """The compose file and the lab read these variables."""
    ours = {"DIRECTOR_IMAGE": IMAGE, "DIRECTOR_NODE_IMAGE": NODE_IMAGE}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]


@contextlib.contextmanager
def engine_for_labs():
    """With the images made; the lab makes its networks itself."""
    require_engine()
    with contextlib.ExitStack() as stack:
        if not answers():
            stack.enter_context(dockerd(*NOTHING_OF_THE_HOSTS))
        make_images()
        stack.enter_context(_images_chosen())
        yield


@contextlib.contextmanager
def engine_with_networks():
    """With the images made; Docker makes its bridges and firewall rules in a network namespace where nobody else lives."""
    with engine_for_labs():
        pass
    with contextlib.ExitStack() as stack:
        if not answers():
            netns.add_namespace(NETNS)
            stack.callback(netns.remove_namespace, NETNS)
            stack.enter_context(dockerd(inside=NETNS))
        stack.enter_context(_images_chosen())
        yield


def engine_fixture(engine):
    """The fixture that keeps an engine for a module's tests, or skips them with the reason why there is none."""

    @pytest.fixture(scope="module", autouse=True)
    def fixture():
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(engine())
            except NoEngine as why:
                pytest.skip(str(why))
            yield

    return fixture


def make_base() -> None:
    """The base image, from Debian's packages where it can't be pulled."""
    if docker("image", "inspect", BASE, check=False).returncode == 0:
        return
    with contextlib.suppress(subprocess.TimeoutExpired):
        if docker("pull", BASE, check=False).returncode == 0:
            return
    tell("making the base image of Debian's packages")
    with tempfile.TemporaryDirectory() as scratch:
        archive = f"{scratch}/base.tar"
        netns.run(["mmdebstrap", "--variant=minbase", "bookworm", archive], timeout=600)
        docker("import", archive, BASE)


def make_images() -> None:
    make_base()
    for image, folder in ((IMAGE, ROOT), (NODE_IMAGE, ROOT / "testbed" / "docker")):
        tell(f"building the image {image}")
        built = docker("build", "--network", "host", "--tag", image, str(folder), check=False, timeout=1800)
        if built.returncode != 0:
            raise RuntimeError(f"docker build {folder} ended with {built.returncode}:\n{built.stdout[-4000:]}\n{built.stderr[-500:]}")
