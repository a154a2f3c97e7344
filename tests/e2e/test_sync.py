# SPDX-License-Identifier: GPL-2.0-or-later
"""Two directors on one wire: the backup knows the master's connections, and goes on with them when the master is killed."""

import re
import signal

import netns
import scenarios
from cluster import BUILD, Lab
from tools import Download

BACKUP = "server3"  # the host of the second director


def start_backup(lab: Lab) -> None:
    """server3 serves no more: its VIP goes, and a director beside its stack waits for the master to fail."""
    host = lab.topology.node(BACKUP)
    lab.exec(BACKUP, [str(BUILD / "realserver"), "down", "--mode", "dr", "--vip", lab.topology.vip])
    lab.exec("director", [str(BUILD / "vsadm"), "-d", "-t", f"{lab.topology.vip}:80", "-r", f"{host.ip}:80"])
    rules = lab.folder / "backup.rules"
    rules.write_text("".join(line for line in lab.rules_file.read_text().splitlines(True) if host.ip not in line))
    lab.spawn(BACKUP, "director", [str(BUILD / "director"), "--device", "packet:eth0", "--rules", str(rules), "--control",
                                   str(lab.folder / "backup.sock"), "--tune", "backup_only=1"])
    netns.wait_until(lambda: backup(lab, "-Ln", check=False).returncode == 0, 10, "the backup's control socket")
    backup(lab, "--start-daemon", "backup", "--mcast-interface", "eth0", "--syncid", "9")


def backup(lab: Lab, *words: str, check: bool = True):
    environment = {**lab.environment(), "DIRECTOR_CONTROL": str(lab.folder / "backup.sock")}
    return lab.exec(BACKUP, [str(BUILD / "vsadm"), *words], check=check, env=environment)


def established(listing: str) -> set[tuple[str, ...]]:
    """(client, virtual, real) of every established connection in an -Lnc listing."""
    return {tuple(row.split()[3:6]) for row in listing.splitlines() if re.match(r"TCP \S+ +ESTABLISHED ", row)}


def test_a_download_survives_the_masters_death(fresh_lab):
    lab = fresh_lab("dr")
    interface = lab.topology.director.links[0].interface
    lab.vsadm("--start-daemon", "master", "--mcast-interface", interface, "--syncid", "9")
    # A backup with nothing to say: neither ARP nor connections are its affair yet.
    lab.rules_file.write_text(scenarios.rules(lab.topology, "rr"))
    start_backup(lab)
    assert "master sync daemon (mcast=" in lab.vsadm("-L", "--daemon").stdout
    assert "syncid=9, maxlen=1472, group=224.0.0.81, port=8848, ttl=1)" in backup(lab, "-L", "--daemon").stdout

    with Download(lab) as download:  # the master's message leaves two seconds after it
        netns.wait_until(lambda: established(lab.vsadm("-Lnc").stdout), 5, "the master's connection")
        known = established(lab.vsadm("-Lnc").stdout)
        netns.wait_until(lambda: established(backup(lab, "-Lnc").stdout) >= known, 15, "the same connection at the backup")
        origins = backup(lab, "reasons").stdout
        assert "sync_adopted" in origins and "sync_malformed" not in origins

        lab.stop_director(signal.SIGKILL)
        backup(lab, "--stop-daemon", "backup")  # what a VRRP daemon would type: from now on it is the director
        assert download.read() == download.size
    rows = backup(lab, "-Ln", "--stats", "--exact").stdout.splitlines()
    packets = [int(row.split()[3]) for row in rows if row.startswith("TCP")]
    assert packets and packets[0] > 0, "the client's packets pass the backup now"
    assert lab.ask()["server"] in ("server1", "server2"), "and it serves new clients"
