# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules of the house that a compiler does not check: who includes whom, and what the pure core may not touch.

The layers are described in director/README.md. A test fails with file:line and the rule.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A folder of the product and the folders it may include from (its own is always allowed).
# `include/director/x` and `director/x` are the two halves of layer x; "" is the folder director/ itself.
LAYERS = {
    "base": set(),
    "net": {"base"},
    "core": {"base", "net", "forward"},  # of forward/ the list of types only
    "forward": {"base", "net", "core"},
    "schedule": {"base", "net", "core"},
    "io": {"base", "net", "core"},
    "control": {"base", "net", "core"},
    "http": {"base", "net", "core"},
}
# Single headers a layer may include beyond that.
ALSO = {
    "net": {"director/core/verdict.h"},  # parse_packet's error is a Reason, and there is one list of reasons
    **dict.fromkeys(("io",), {"director/log.h"}),
    "control": {"director/log.h", "director/io/unique_fd.h", "director/io/bpf_object.h"},  # descriptors and their owners
    "http": {"director/fate.h", "director/json_listing.h", "director/io/clock.h", "director/io/loop_statistics.h",
             "director/io/unique_fd.h"},
}
PURE = ("base", "net", "core", "forward", "schedule")
SOURCES = sorted(
    path for folder in ("include/director", "director") for path in (ROOT / folder).rglob("*") if path.suffix in (".h", ".cpp", ".def")
)
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)

# What the pure core may not do, and why the pattern means that.
FORBIDDEN = {
    r"#\s*include\s*<(sys|linux|net|netinet|arpa|asm)/": "a header of the kernel or of sockets",
    r"#\s*include\s*<(unistd\.h|fcntl\.h|iostream|fstream|thread|mutex|cstdio|stdio\.h)>": "input, output or threads",
    r"\bnow\(\s*\)": "the time: the core is told it (house law 1)",
    r"\bntoh[sl]\b|\bhton[sl]\b": "byte order by hand: that is what net/endian.h is for",
    r"\bshared_ptr\b": "shared ownership: the loop owns, others borrow",
}


def layer_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    parts = parts[2:] if parts[0] == "include" else parts[1:]
    return parts[0] if len(parts) > 1 else ""


def layer_of_include(name: str) -> str | None:
    """Which layer an #include of ours leads to; None for a foreign header."""
    if not name.startswith("director/"):
        return None
    parts = name.split("/")[1:]
    return parts[0] if len(parts) > 1 else ""


def without_comments(text: str) -> str:
    """Same length and line breaks, so that positions stay true."""
    blank = lambda match: re.sub(r"[^\n]", " ", match[0])  # noqa: E731
    return re.sub(r"//[^\n]*|/\*.*?\*/", blank, text, flags=re.DOTALL)


def place(path: Path, text: str, at: int) -> str:
    return f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, at) + 1}"


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_includes_only_what_it_may(layer):
    wrong = []
    for path in SOURCES:
        if layer_of(path) != layer:
            continue
        text = path.read_text()
        for include in INCLUDE.finditer(text):
            target = layer_of_include(include[2])
            allowed = target is None or target == layer or target in LAYERS[layer] or include[2] in ALSO.get(layer, ())
            if not allowed:
                wrong.append(f"{place(path, text, include.start(1))}: {layer}/ may not include {include[2]}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("layer", PURE)
def test_the_core_is_pure(layer):
    wrong = []
    for path in SOURCES:
        if layer_of(path) != layer:
            continue
        text = without_comments(path.read_text())
        for pattern, why in FORBIDDEN.items():
            if path.name == "endian.h" and "byte order" in why:
                continue
            wrong += [f"{place(path, text, match.start())}: {why}" for match in re.finditer(pattern, text)]
    assert not wrong, "\n".join(wrong)


def test_unit_tests_and_fuzzers_use_public_headers_only():
    wrong = []
    for folder in ("unit", "fuzz", "bench"):
        for path in sorted((ROOT / "tests" / folder).rglob("*.cc")) + sorted((ROOT / "tests" / folder).rglob("*.cpp")):
            text = path.read_text()
            for include in INCLUDE.finditer(text):
                ours = include[2].startswith("director/") and not (ROOT / "include" / include[2]).exists()
                if ours or ".." in include[2]:
                    wrong.append(f"{place(path, text, include.start(1))}: {include[2]} is not under include/")
    assert not wrong, "\n".join(wrong)


def test_sources_are_listed_by_name():
    """A file that no target names is not in the product; a glob would hide that."""
    cmake = (ROOT / "CMakeLists.txt").read_text()
    assert not re.search(r"file\s*\(\s*GLOB", cmake)
    missing = [str(path.relative_to(ROOT)) for path in SOURCES if path.suffix == ".cpp" and str(path.relative_to(ROOT)) not in cmake]
    assert not missing, f"in no target of CMakeLists.txt: {', '.join(missing)}"


def test_every_file_begins_by_saying_what_it_is():
    wrong = []
    for path in SOURCES:
        first = next((line for line in path.read_text().splitlines() if line.strip() and "SPDX" not in line), "")
        if not first.startswith(("//", "/*")):
            wrong.append(str(path.relative_to(ROOT)))
    assert not wrong, f"no first comment: {', '.join(wrong)}"


def test_offloads_are_switched_off_in_one_place_only():
    """Wrong checksums are never cured with ethtool -K; the lab's --offload off is the one user."""
    users = []
    for folder in ("director", "include", "testbed", "tests"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and path.suffix in (".py", ".sh", ".cpp", ".h", ".yaml", ".cc", "") and path != Path(__file__):
                if re.search(r"ethtool\W+-K|--offload\W+\w+\W+(tx|gso|tso)", path.read_text(errors="replace")):
                    users.append(str(path.relative_to(ROOT)))
    assert users == ["testbed/netns.py"]


def test_nothing_waits_by_sleeping():
    """Tests and lab poll a condition with a deadline: netns.wait_until is the only sleep."""
    sleeps = []
    for folder in ("testbed", "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text()
            sleeps += [place(path, text, match.start()) for match in re.finditer(r"\btime\.sleep\(", text) if path != Path(__file__)]
    assert len(sleeps) == 1 and sleeps[0].startswith("testbed/netns.py"), sleeps


def test_the_manual_tells_every_option():
    options = re.findall(r'add\("([a-z-]+)"', (ROOT / "director" / "options.cpp").read_text())
    manual = (ROOT / "director" / "director.8").read_text()
    assert len(options) > 10
    missing = [option for option in options if f"Fl -{option}" not in manual]
    assert not missing, f"not in director.8: {', '.join(missing)}"


def test_the_manual_tells_every_line_of_the_log():
    """People alert on these words: director.8, LOG."""
    manual = (ROOT / "director" / "director.8").read_text()
    messages = set()
    for path in sorted((ROOT / "director").rglob("*.cpp")):
        text = path.read_text()
        calls = r"\blog::(?:error|warning|info|write)\("
        if path.name == "events.cpp":
            calls = r"\b(?:tell|event|of_service|of_server)\("
        for call in re.finditer(calls, text):
            head = re.split(r"\{\{|\);", text[call.end():], maxsplit=1)[0]  # before the fields
            messages |= set(re.findall(r'"([^"]+)"', head))
    assert len(messages) > 40
    missing = [message for message in sorted(messages) if f'"{message}"' not in manual]
    assert not missing, f"not in director.8: {', '.join(missing)}"
