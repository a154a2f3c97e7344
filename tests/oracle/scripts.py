# SPDX-License-Identifier: GPL-2.0-or-later
"""Random scripts: services, changes to them and packets, from a seed. The same seed makes the same script.

A step names what is to happen (the server of flow 3 answers with SYN and ACK), not the bytes: which server that is, turns out when it
runs. So a script stays a script when steps are taken out of it, which is how shrink.py makes a small one.

Not made, because tests/golden/departures.md says that the director does it otherwise, in ways that no rule can tell from a mistake: fragments,
a server whose method changes while it has connections, and record route or timestamps in what is refused by ICMP.
"""

import random

VIPS = [f"10.9.0.{n}" for n in range(100, 104)]
SERVERS = ["10.9.0.11", "10.9.0.12", "10.9.0.13"]
SCHEDULERS = ["rr", "wrr", "lc", "wlc", "fo", "ovf", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq"]
FLAGS = {"sh": ["sh-fallback", "sh-port", "sh-fallback,sh-port"], "mh": ["mh-fallback", "mh-port", "mh-fallback,mh-port"]}
PORTS = [80, 443, 8080]
UNSERVED = 22
KNOBS = {"sloppy_tcp": [0, 1], "expire_nodest_conn": [0, 1], "conn_reuse_mode": [0, 1, 2, 3], "nat_icmp_send": [0, 1], "pmtu_disc": [0, 1],
         "schedule_icmp": [0, 1], "expire_quiescent_template": [0, 1]}
TCP_LIFE = [("client", "S"), ("server", "SA"), ("client", "A"), ("client", "PA"), ("server", "A"), ("server", "PA"), ("client", "A")]
TCP_ENDS = [[("client", "FA"), ("server", "A"), ("server", "FA"), ("client", "A")], [("server", "FA"), ("client", "FA"), ("server", "A")],
            [("client", "R")], [("server", "RA")], [("client", "FA"), ("server", "FA"), ("client", "A")], []]
ODD_FLAGS = ["", "F", "R", "RA", "SF", "SR", "SFA", "A", "FPU", "U", "S", "SA", "FA", "PA", "SPA"]
SETTLE = {"op": "sleep", "seconds": 2.1}  # the kernel's counters reach those it shows, and zeroes, every two seconds (ip_vs_est.c)
QUIET_OPTIONS = ["01010101", "88040a0901010101"]  # no-ops, stream id: no answer has them
RECORDS = ["0707040000000000", "440c05000000000000000000"]  # record route, timestamp: a refusal has them too, by the kernel


def make_script(seed: int) -> dict:
    return Maker(random.Random(seed)).script(seed)


class Maker:
    def __init__(self, dice: random.Random):
        self.dice = dice
        self.methods: dict[tuple[str, str], str] = {}
        self.services: dict[str, dict] = {}  # "-t VIP:PORT": {"servers": [...]}; what the rules would be if all went well

    def chance(self, percent: float) -> bool:
        return self.dice.random() * 100 < percent

    def script(self, seed: int) -> dict:
        rules = []
        for _ in range(self.dice.choice([1, 1, 2, 2, 3])):
            rules += self.new_service()
        rules = [rule.removeprefix("ipvsadm ") for rule in rules]
        flows = self.flows = [self.flow() for _ in range(self.dice.randint(2, 12))]
        knobs = {f"net.ipv4.vs.{name}": self.dice.choice(values) for name, values in KNOBS.items() if self.chance(12)}
        steps = self.steps(flows)
        host = {"net.ipv4.ip_forward": 1, "net.ipv4.conf.all.send_redirects": 0, "net.ipv4.conf.e0.send_redirects": 0,
                "net.ipv4.icmp_ratelimit": 0, "net.ipv4.conf.all.rp_filter": 0}
        neighbours = {f"10.9.0.{n}": f"02:00:00:00:00:{n:02d}" for n in (1, 11, 12, 13, 60)}
        case = {"description": f"random script, seed {seed}", "kernel": "6.1", "vips": VIPS, "neighbours": neighbours,
                "director": {"mac": "02:00:00:00:00:02", "address": "10.9.0.2/24", "interface": "e0", "mtu": 1500},
                "routes": [{"dst": "0.0.0.0/0", "via": "10.9.0.1"}], "sysctl": knobs, "host_sysctl": host,
                "ignore": ["local.ip.id", "outer.ip.id(when outer DF=0)", "ip.option.timestamp"], "notes": []}
        return {"seed": seed, "case": case, "rules": rules, "servers": SERVERS, "flows": flows, "steps": steps}

    # --- rules ---

    def service_options(self) -> str:
        scheduler = self.dice.choice(SCHEDULERS)
        flags = f" -b {self.dice.choice(FLAGS[scheduler])}" if scheduler in FLAGS and self.chance(60) else ""
        return f"-s {scheduler}{flags}"

    def new_service(self) -> list[str]:
        service = f"{self.dice.choice(['-t', '-t', '-u'])} {self.dice.choice(VIPS[:2])}:{self.dice.choice(PORTS)}"
        if service in self.services:
            return []
        self.services[service] = {"servers": []}
        method = self.dice.choice(["-m", "-g", "-i", "mixed"])
        lines = [f"ipvsadm -A {service} {self.service_options()}"]
        for address in self.dice.sample(SERVERS, self.dice.choice([0, 1, 2, 2, 3, 3, 3])):
            lines.append(self.server_line("-a", service, address, self.dice.choice("-m -g -i".split()) if method == "mixed" else method))
        return lines

    def server_line(self, verb: str, service: str, address: str, method: str | None = None) -> str:
        method = self.methods.setdefault((service, address), method or self.dice.choice(["-m", "-g", "-i"]))
        port = service.rsplit(":", 1)[1]
        known = self.services.get(service, {"servers": []})["servers"]
        if verb == "-a":
            port = self.dice.choice([port, port, "8080"]) if method == "-m" else port
            known.append(f"{address}:{port}")
            real = f"{address}:{port}"
        else:
            real = self.dice.choice(known) if known and not self.chance(10) else f"{address}:{port}"
            method = self.methods.setdefault((service, real.split(":")[0]), method)
        weight = self.dice.choice([0, 1, 1, 1, 1, 2, 3, 5, 10, 100])
        limits = ""
        if self.chance(12):
            upper = self.dice.randint(1, 4)
            limits = f" -x {upper}" + (f" -y {self.dice.randint(0, upper)}" if self.chance(50) else "")
        return f"ipvsadm {verb} {service} -r {real} {method} -w {weight}{limits}"

    def change(self) -> str:
        service = self.dice.choice(list(self.services)) if self.services and not self.chance(5) else f"-t {VIPS[2]}:80"
        known = self.services.get(service, {"servers": []})["servers"]
        what = self.dice.choices(["-e", "-a", "-d", "-E", "-Z", "--set", "-D", "-A", "-C"], [30, 20, 20, 10, 4, 8, 4, 4, 1])[0]
        if what in ("-e", "-a"):
            return self.server_line(what, service, self.dice.choice(SERVERS))
        if what == "-d":
            real = self.dice.choice(known) if known else f"{SERVERS[0]}:80"
            if real in known and self.chance(60):
                known.remove(real)
            return f"ipvsadm -d {service} -r {real}"
        if what == "-E":
            return f"ipvsadm -E {service} {self.service_options()}"
        if what == "-Z":
            return f"ipvsadm -Z {service}" if self.chance(50) else "ipvsadm -Z"
        if what == "--set":
            return "ipvsadm --set " + " ".join(str(self.dice.choice([0, 0, 5, 20, 100, 1000])) for _ in range(3))
        if what == "-D":
            self.services.pop(service, None)
            return f"ipvsadm -D {service}"
        if what == "-A":
            return (self.new_service() or [f"ipvsadm -A {service}"])[0]
        self.services.clear()
        return "ipvsadm -C"

    # --- packets ---

    def flow(self) -> dict:
        service = self.dice.choice(list(self.services)) if self.services and not self.chance(10) else f"-t {VIPS[3]}:{UNSERVED}"
        vip, port = service.split()[1].split(":")
        protocol = {"-t": "tcp", "-u": "udp"}[service.split()[0]]
        if self.chance(3):
            protocol = "udp" if protocol == "tcp" else "tcp"
        client = self.dice.choice(["10.9.0.1", "10.9.0.1", f"198.18.{self.dice.randint(0, 3)}.{self.dice.randint(1, 254)}"])
        return {"protocol": protocol, "client": client, "cport": self.dice.choice([20, 1024, 65535, *(self.dice.randint(1025, 60000) for _ in range(30))]),
                "vip": vip, "vport": int(port)}

    def life(self, number: int, flow: dict) -> list[dict]:
        if flow["protocol"] == "udp":
            turns = [(self.dice.choice(["client", "client", "server"]), "") for _ in range(self.dice.randint(1, 6))]
        else:
            turns = TCP_LIFE[:self.dice.randint(1, len(TCP_LIFE))] + (self.dice.choice(TCP_ENDS) if self.chance(70) else [])
            if self.chance(25):  # the same port once more
                turns += TCP_LIFE[:self.dice.randint(1, 4)]
        steps = []
        for side, flags in turns:
            if self.chance(4):
                continue
            if flow["protocol"] == "tcp" and self.chance(8):
                side, flags = self.dice.choice(["client", "server"]), self.dice.choice(ODD_FLAGS)
            step = self.packet(number, side, flags)
            steps += [step] * (2 if self.chance(4) else 1)
            if self.chance(6):
                steps.append(self.error(number))
        return steps

    def packet(self, number: int, side: str, flags: str) -> dict:
        step = {"op": "packet", "flow": number, "side": side, "flags": flags}
        if "P" in flags or self.chance(30):
            step["len"] = self.dice.choice([0, 1, 7, 33, 512, 1400])
        if self.chance(4):
            step["len"] = self.dice.choice([1420, 1424, 1428, 1432, 1440, 1444, 1445, 1452, 1460, 1464, 1472])
        if self.chance(60):
            step["df"] = True
        if self.chance(6):
            step["ttl"] = self.dice.choice([0, 1, 1, 2, 3, 255])
        if self.chance(8):
            step["tos"] = self.dice.choice([0x10, 0xB8, 0x01, 0x02, 0x03, 0xFF])
        if self.chance(3):
            step["wrong_checksum"] = True
        if self.chance(4):
            step["no_checksum"] = True
        if self.chance(2):
            # A refused segment is what a rule knows; an ICMP error about options counts other bytes, which none can tell.
            recorded = side == "client" and flags in ("A", "PA", "FA") and self.unserved(number) and "ttl" not in step
            step["options"] = self.dice.choice(RECORDS if recorded else QUIET_OPTIONS)
        if step.get("len", 0) > (most := 1460 - len(step.get("options", "")) // 2):  # of a TCP packet that fits the link
            step["len"] = most
        if self.chance(1):
            step["cut"] = self.dice.choice([0, 4, 7, 8, 12, 19])
        return step

    def unserved(self, number: int) -> bool:
        return self.flows[number]["vport"] == UNSERVED

    def error(self, number: int) -> dict:
        kind, code = self.dice.choice([(3, 0), (3, 1), (3, 3), (3, 4), (3, 4), (3, 13), (11, 0), (11, 1), (4, 0), (12, 0), (5, 1)])
        step = {"op": "icmp", "flow": number, "side": self.dice.choice(["client", "server", "router"]), "type": kind, "code": code}
        if (kind, code) == (3, 4):
            step["word"] = self.dice.choice([1400, 1300, 1006, 576])
        if self.chance(15):
            step["quote"] = self.dice.choice([0, 8, 19, 20, 24, 27, 28, 36, 48])
        if self.chance(6):
            step["ttl"] = self.dice.choice([1, 2])
        if self.chance(5):
            step["wrong_checksum"] = True
        if self.chance(20) and step["side"] == "client":
            step["from"] = "192.0.2.77"
        return step

    def steps(self, flows: list[dict]) -> list[dict]:
        """The flows' lives, shuffled into each other, with changes between."""
        lives = [self.life(i, flow) for i, flow in enumerate(flows)]
        if self.chance(40):
            self.dice.shuffle(lives)
        steps = []
        while lives:
            live = self.dice.choice(lives[:4])
            for _ in range(self.dice.choice([1, 1, 2, 3, 5])):
                if live:
                    steps.append(live.pop(0))
            lives = [life for life in lives if life]
            if self.chance(10):
                command = self.change()
                if "-Z" in command:
                    steps.append(SETTLE)
                steps.append({"op": "admin", "cmd": command})
            if self.chance(2):
                name, values = self.dice.choice(list(KNOBS.items()))
                steps.append({"op": "sysctl", "name": f"net.ipv4.vs.{name}", "value": self.dice.choice(values)})
            if self.chance(6):
                steps.append({"op": self.dice.choice(["conns", "list"])})
            if self.chance(2):
                listing = self.dice.choice(["-Ln --stats --exact", "-Ln --thresholds", "-Ln --persistent-conn", "-Ln --timeout", "-Sn"])
                if "--stats" in listing:
                    steps.append(SETTLE)
                steps.append({"op": "admin", "cmd": f"ipvsadm {listing}"})
        return steps
