# SPDX-License-Identifier: GPL-2.0-or-later
"""director/COMPATIBILITY.md is complete and says nothing of what isn't there: rows and programs are compared, both ways."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "director" / "COMPATIBILITY.md"
VERDICTS = ("same", "better", "not applicable")
WORDS = re.compile(r"`([^`]+)`")


def rows(heading: str) -> list[list[str]]:
    """The table below a heading: cells of each row."""
    section = PAGE.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def headings() -> list[str]:
    return re.findall(r"^## (.+)$", PAGE.read_text(), re.MULTILINE)


def names(*which: str) -> set[str]:
    return {name for heading in which for row in rows(heading) for name in WORDS.findall(row[0])}


def from_def(file: str, pattern: str) -> set[str]:
    return set(re.findall(pattern, (ROOT / file).read_text(), re.MULTILINE))


@pytest.mark.parametrize("heading", headings())
def test_every_row_says_same_better_or_why_not(heading):
    for row in rows(heading):
        assert len(row) == 3, row
        assert row[1] in VERDICTS, row
        assert row[1] == "same" or row[2], f"{row[0]}: {row[1]}, but not how or why"


def test_no_row_says_later():
    promises = [word for word in ("later", "not yet", "planned", "todo", "in future") if re.search(rf"\b{word}\b", PAGE.read_text(), re.I)]
    assert promises == []


def test_no_name_has_two_rows():
    for group in (("ipvsadm's commands", "ipvsadm's options"), ("Schedulers",), ("Knobs",)):
        all_names = [name for heading in group for row in rows(heading) for name in WORDS.findall(row[0])]
        assert sorted(all_names) == sorted(set(all_names))


def test_options_are_those_of_the_help():
    text = (ROOT / "director" / "vsadm" / "help.cpp").read_text()
    help_words = set(re.findall(r"(?<![\w-])(--?[A-Za-z0-9][\w-]*)", text.split("commands\n", 1)[1]))
    page = {name for name in names("ipvsadm's commands", "ipvsadm's options") if name.startswith("-")}
    ours = {"--dry-run", "--on-timeout", "--interval"}  # of the commands beyond ipvsadm
    assert page - help_words - {"--sort", "--ipv6"} == set(), "rows about what vsadm --help doesn't have"
    assert {word for word in help_words - page - ours if not belongs_to_us(word)} == set(), "options without a row"


def belongs_to_us(word: str) -> bool:
    """An option that ipvsadm doesn't have; those of them that listings and saving take have rows all the same."""
    return word not in ipvsadm_options()


def ipvsadm_options() -> set[str]:
    """What the parser knows, up to where ipvsadm's end."""
    table = (ROOT / "director" / "command_line.cpp").read_text().split("kOptions[] = {")[1].split("// beyond ipvsadm")[0]
    pairs = re.findall(r"\{(?:'(.)'|0), \"([\w-]+)\"", table)
    return {f"-{letter}" for letter, _ in pairs if letter} | {f"--{name}" for _, name in pairs}


def test_options_are_those_the_parser_knows():
    page = {name for name in names("ipvsadm's commands", "ipvsadm's options") if name.startswith("-")}
    assert ipvsadm_options() - page == set(), "options without a row"
    assert page - ipvsadm_options() == {"--json", "--extended"}, "rows without an option"


def test_schedulers_are_those_there_are():
    assert names("Schedulers") == from_def("director/schedule/schedulers.def", r'^SCHEDULER\(\w+, "(\w+)",')


def test_knobs_are_those_of_the_kernel_and_ours():
    """A row for every knob here; every knob that the kernel has, and we haven't, says why not."""
    file = "include/director/core/tunables.def"
    here, idle = from_def(file, r"^TUNABLE\((\w+),"), from_def(file, r"^TUNABLE_WITHOUT_EFFECT\((\w+),")
    verdicts = {name: row[1] for row in rows("Knobs") for name in WORDS.findall(row[0])}
    assert (here | idle) - set(verdicts) == set(), "knobs without a row"
    assert {name for name, verdict in verdicts.items() if verdict != "not applicable"} == here
    assert KERNEL <= set(verdicts)


# /proc/sys/net/ipv4/vs of Linux 6.1, and what 6.2 to 7.x added (est_*, conn_*, svc_lfactor).
KERNEL = set(
    """am_droprate amemthresh backup_only cache_bypass conn_lfactor conn_max conn_reuse_mode conntrack debug_level drop_entry drop_packet
    est_cpulist est_nice expire_nodest_conn expire_quiescent_template ignore_tunneled lblc_expiration lblcr_expiration nat_icmp_send pmtu_disc
    run_estimation schedule_icmp secure_tcp sloppy_tcp sloppy_sctp snat_reroute svc_lfactor sync_persist_mode sync_ports sync_qlen_max
    sync_refresh_period sync_retries sync_sock_size sync_threshold sync_version""".split()
)


def test_the_page_is_linked():
    assert "COMPATIBILITY.md" in (ROOT / "director" / "README.md").read_text()
    assert "director/COMPATIBILITY.md" in (ROOT / "README.md").read_text()
