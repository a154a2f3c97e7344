# SPDX-License-Identifier: GPL-2.0-or-later
"""The verbs of `testbed/lab` (the shell script of that name starts this file when packages and build are there)."""

import argparse
import itertools
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import bench.contenders
import bench.rounds
import bench.works
import candidates
import demo
import doctor
import netns
import picture
import private
import scenarios
import screen
import tracing.journeys
import tracing.request
from cluster import FAILED, OK, USAGE, Lab, LabError, Options
from screen import say
from topology import FAMILIES, in_url


def main(argv: list[str]) -> int:
    if argv[:1] == ["complete"]:  # Tab, not a person
        say("\n".join(candidates.candidates(parser(), argv[1:])))
        return OK
    options, command = parse(argv)
    netns.echo = getattr(options, "echo", False)
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # an ordinary user's PATH has no ip, nft, sysctl
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:  # a shell's background job stays deaf to Ctrl-C
            signal.signal(number, netns.interrupted)
    try:
        private.prepare()
        return options.run(options, command)
    except LabError as problem:
        return _complain(str(problem), problem.code)
    except (netns.CommandFailed, netns.DeadlinePassed, subprocess.TimeoutExpired, OSError) as problem:
        return _complain(str(problem), FAILED)
    except KeyboardInterrupt:
        return _complain("interrupted; what was made is taken away again", 128 + signal.SIGINT)


def _complain(message: str, code: int) -> int:
    print(f"lab: {message}", file=sys.stderr)
    return code


# --- verbs ---


def do_demo(options, _command) -> int:
    if private.needed():
        return private.run(_myself())
    return demo.main(options.servers, options.requests, device=options.device, scheduler=options.scheduler,
                     offload=options.offload, director=options.director, family=options.family)


def do_bench(options, _command) -> int:
    if private.needed():
        return private.run(_myself())
    return bench.rounds.main(options)


def do_up(options, _command) -> int:
    name = options.name or options.mode
    if private.needed():
        return private.start(name, _myself())
    lab = Lab(Options(name, options.mode, options.servers, options.device, options.scheduler, options.offload,
                      options.director, options.family, options.tunnel))
    with screen.step(f"lab {name}: {' '.join(node.name for node in lab.topology.nodes)}"):
        lab.up(keep_on_failure=options.keep)
    say()
    say(picture.text(lab.topology))
    flag = f" --name {name}" if options.name else ""
    say(f"next:  testbed/lab curl{flag} -n 6" + " " * 8 + f"testbed/lab exec{flag} director -- vsadm -Ln")
    say(f"       testbed/lab sh{flag} server1" + " " * 7 + f"testbed/lab down{flag}")
    if private.READY in os.environ:
        private.stay()
    return OK


def do_down(options, _command) -> int:
    name = _name(options)
    if private.needed():
        private.end(name)
    else:
        try:
            lab = Lab.load(name)
        except LabError:
            lab = Lab(Options(name, "nat"))  # what an `up` that was killed left behind is found by its names
            if not lab.folder.exists() and not lab.namespaces():
                raise
        lab.down()
    screen.done(f"lab {name} is gone")
    return OK


def do_ls(options_given, _command) -> int:
    rows = [("LAB", "MODE", "FAMILY", "DEVICE", "SERVERS", "SCHEDULER", "OFFLOAD", "DIRECTOR", "STATE")]
    for name in Lab.names():
        try:
            lab = Lab.load(name)
        except LabError:
            rows.append((name, *["?"] * 7, "broken"))
            continue
        options = lab.options
        rows.append((name, options.mode, options.family, options.device, str(options.servers), options.scheduler, options.offload,
                     options.director, _state(lab)))
    if options_given.json:
        say(json.dumps({"labs": [dict(zip((title.lower() for title in rows[0]), row)) for row in rows[1:]]}, indent=2))
        return OK
    if len(rows) == 1:
        say("no lab is running; testbed/lab up --mode dr starts one")
        return OK
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        say("  ".join(word.ljust(width) for word, width in zip(row, widths)).rstrip())
    return OK


def _state(lab: Lab) -> str:
    if private.needed():
        return "up" if private.keeper(lab.name).alive() else "broken"
    dead = [what for what, process in lab.processes.items() if not process.alive()]
    return f"ended: {', '.join(dead)}" if dead else "up"


def do_curl(options, command) -> int:
    lab = Lab.load(_name(options))
    _go_inside(lab)
    counts: Counter = Counter()
    for _, url in zip(range(options.requests), itertools.cycle(lab.topology.urls)):  # with two families: in turn
        started = time.monotonic()
        try:
            page = lab.ask(url, *command)
        except netns.CommandFailed as problem:
            raise LabError(f"{problem.result.stderr.strip()}; `testbed/lab logs --name {lab.name} director`") from None
        took = (time.monotonic() - started) * 1000
        counts[page["server"]] += 1
        say(f"{page['server']}  address={page['address']}  client={in_url(page['client'])}:{page['port']}  to={page['to']}  "
            f"{took:.0f} ms")
    if options.requests > 1:
        screen.tell("\n" + screen.spread(counts))
    return OK


def do_exec(options, command) -> int:
    if not command:
        raise LabError("usage: testbed/lab exec [--name LAB] NODE -- COMMAND...", USAGE)
    lab = Lab.load(_name(options))
    _go_inside(lab)
    return _become(lab, options.node, command)


def do_sh(options, _command) -> int:
    lab = Lab.load(_name(options))
    _go_inside(lab)
    os.environ["PS1"] = f"{lab.name}-{options.node}# "
    return _become(lab, options.node, ["sh", "-i"] if sys.stdin.isatty() else ["sh"])


def _become(lab: Lab, node: str, command: list[str]) -> int:
    namespace = lab.namespace(node)
    if namespace not in netns.namespaces():
        nodes = ", ".join(name.removeprefix(lab.name + "-") for name in lab.namespaces())
        raise LabError(f"lab {lab.name} has no node {node!r}; it has {nodes}", USAGE)
    full = [*netns.enter(namespace), *command]
    if netns.echo:
        print("+ " + shlex.join(full), file=sys.stderr)
    sys.stdout.flush()
    environment = lab.environment()
    if not shutil.which(command[0], path=environment["PATH"]):
        return _complain(f"{command[0]}: no such program", 127)  # as a shell says it
    os.execvpe(full[0], full, environment)


def do_graph(options, _command) -> int:
    if options.mode:
        topology = scenarios.build(options.mode, options.servers, options.device, options.family)
    else:
        topology = Lab.load(_name(options)).topology
    say({"text": picture.text, "mermaid": picture.mermaid, "dot": picture.dot}[options.format](topology).rstrip())
    return OK


def do_trace(options, _command) -> int:
    lab = Lab.load(_name(options))
    _go_inside(lab)
    return tracing.request.main(lab, options)


def do_logs(options, _command) -> int:
    lab = Lab.load(_name(options))
    logs = sorted(lab.logs.glob(f"{options.node or ''}*.log"))
    if not logs:
        raise LabError(f"lab {lab.name} has no logs of {options.node!r}; nodes are named as in `testbed/lab graph`", USAGE)
    for log in logs:
        for line in log.read_text(errors="replace").splitlines():
            say(f"{log.stem:<18} {line}")
    return OK


def do_doctor(options, _command) -> int:
    if options.name:
        _go_inside(Lab.load(options.name))
    return doctor.main(options.name, options.json, _myself()[:2])


def _myself() -> list[str]:
    return [sys.executable, os.path.abspath(__file__), *sys.argv[1:]]


def _go_inside(lab: Lab) -> None:
    """Not root: goes on in the lab's private namespaces (this call doesn't return then)."""
    if private.needed():
        private.enter(lab.name, _myself())


def _name(options) -> str:
    """--name may be left out while one lab runs."""
    if options.name:
        return options.name
    names = Lab.names()
    if len(names) == 1:
        return names[0]
    if not names:
        raise LabError("no lab is running; `testbed/lab up --mode dr` starts one")
    raise LabError(f"{len(names)} labs are running ({', '.join(names)}); say which with --name", USAGE)


# --- the command line ---


class Parser(argparse.ArgumentParser):
    def error(self, message: str):
        print(f"lab: {message}\n{self.format_usage().strip()}", file=sys.stderr)
        sys.exit(USAGE)


def _servers(text: str) -> int:
    count = int(text)
    if not 1 <= count <= scenarios.MAX_SERVERS:
        raise argparse.ArgumentTypeError(f"from 1 to {scenarios.MAX_SERVERS}")
    return count


def _requests(text: str) -> int:
    if (count := int(text)) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return count


def _words(known):
    """A list with commas, of what is known."""

    def read(text: str) -> list[str]:
        words = [word for word in text.split(",") if word]
        if unknown := [word for word in words if word not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not of {', '.join(known)}")
        return words

    read.known = known
    return read


def parser() -> Parser:
    common = Parser(add_help=False)
    # SUPPRESS: absent after the verb must not undo what stood before it.
    common.add_argument("-x", dest="echo", action="store_true", default=argparse.SUPPRESS,
                        help="print every command as it runs")
    named = Parser(add_help=False)
    named.add_argument("--name", metavar="LAB", help="which lab; may be left out while one runs")
    shape = Parser(add_help=False)
    shape.add_argument("--servers", type=_servers, default=3, metavar="N", help="real servers (default 3)")
    shape.add_argument("--family", choices=FAMILIES, default="4", help="IPv4, IPv6, or 46: both (default 4)")
    shape.add_argument("--tunnel", choices=scenarios.TUNNELS, default="ipip", help="what VS/TUN puts packets in (default ipip)")
    shape.add_argument("--device", choices=scenarios.DEVICES, default="packet", help="how the director gets frames")
    shape.add_argument("--scheduler", default="rr", help="rr, wrr, lc, wlc, sh, ... (default rr)")
    shape.add_argument("--offload", choices=("on", "off"), default="on", help="checksum and segmentation offload of all links")
    shape.add_argument("--director", choices=("native", "docker", "none"), default="native",
                       help="the built program, the image, or none yet")

    top = Parser(prog="testbed/lab", description="A load balancer, its clients and its servers, in network namespaces.",
                 parents=[common])
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, run, help: str, *parents) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=help, description=help, parents=[common, *parents])
        added.set_defaults(run=run)
        return added

    added = verb("demo", do_demo, "all methods, one after another, with curl", shape)
    added.add_argument("-n", dest="requests", type=_requests, default=12, help="requests for each (default 12)")
    added = verb("up", do_up, "start a lab", named, shape)
    added.add_argument("--mode", choices=scenarios.MODES, required=True)
    added.add_argument("--keep", action="store_true", help="leave a lab that failed to start, to look at")
    verb("down", do_down, "take a lab away", named)
    printing = Parser(add_help=False)
    printing.add_argument("--json", action="store_true", help="for programs")
    verb("ls", do_ls, "the labs that run", printing)
    added = verb("curl", do_curl, "requests from the client to each VIP in turn; more words for curl after --", named)
    added.add_argument("-n", dest="requests", type=_requests, default=1, help="how many (default 1)")
    added = verb("exec", do_exec, "run a command in a node: exec NODE -- COMMAND...", named)
    added.add_argument("node")
    added = verb("sh", do_sh, "a shell in a node", named)
    added.add_argument("node")
    added = verb("graph", do_graph, "a picture of a lab, or of --mode before there is one", named)
    added.add_argument("--mode", choices=scenarios.MODES)
    added.add_argument("--servers", type=_servers, default=3, metavar="N")
    added.add_argument("--family", choices=FAMILIES, default="4")
    added.add_argument("--device", choices=scenarios.DEVICES, default="packet")
    added.add_argument("--mermaid", dest="format", action="store_const", const="mermaid", default="text")
    added.add_argument("--dot", dest="format", action="store_const", const="dot")
    added = verb("trace", do_trace, "one request, hop by hop: what changes in its packets, and where", named)
    added.add_argument("--path", default="/", help="what is asked for (default /)")
    added.add_argument("--family", choices=("4", "6"), help="of the VIP, where the lab has both")
    kinds = tracing.journeys.KINDS
    added.add_argument("--packets", type=_words((*kinds, tracing.journeys.ALL)), default=tracing.journeys.STORY, metavar="KIND,...",
                       help=f"{', '.join(kinds)}, or all (default {','.join(tracing.journeys.STORY)})")
    added.add_argument("--json", action="store_true", help="the same as JSON")
    added.add_argument("--svg", type=Path, metavar="FILE", help="draw it")
    added = verb("logs", do_logs, "what the programs in a lab wrote", named)
    added.add_argument("node", nargs="?")
    added = verb("bench", do_bench, "how fast: the director beside the kernel and proxies, all in the same lab")
    works, contenders = list(bench.works.WORKS), list(bench.contenders.NAMES)
    added.add_argument("--quick", action="store_true", help="one round of short samples: under three minutes")
    added.add_argument("--rounds", type=_requests, metavar="N", help="how often each contender is visited (default 5)")
    added.add_argument("--only", type=_words(works), default=works, metavar="WORK,...", help=", ".join(works))
    added.add_argument("--contenders", type=_words(contenders), default=contenders, metavar="NAME,...", help=", ".join(contenders))
    added.add_argument("--accelerate", metavar="HOW", help="what the director's --accelerate is given: off for no shortcuts")
    added.add_argument("--seconds", type=float, metavar="S", help="of a sample (default 2)")
    added.add_argument("--size", type=_requests, metavar="MIB", help="of a bulk transfer (default 1024)")
    added.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    added.add_argument("--svg", type=Path, metavar="FILE", help="write a chart")
    added = verb("doctor", do_doctor, "check this machine and the labs that run; with --name that lab alone", named, printing)
    return top


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Everything after the first `--` is a command for a node, not for us."""
    argv, command = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
    return parser().parse_args(argv), command


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
