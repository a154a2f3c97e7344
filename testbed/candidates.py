# SPDX-License-Identifier: GPL-2.0-or-later
"""How a line of `testbed/lab` may go on: what Tab offers. The shells' halves are in completion/; the grammar is cli.py's own."""

import argparse
from pathlib import Path

from cluster import Lab, LabError

FILE = ":file"  # which files there are the shell knows best


def candidates(parser: argparse.ArgumentParser, words: list[str]) -> list[str]:
    """For the last word, the one that is being typed."""
    *before, typed = words or [""]
    verbs = next(action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    while before and before[0].startswith("-"):  # in front of the verb there is only -x
        before.pop(0)
    if "--" in before:
        return [FILE]  # a command of the node's
    if not before:
        return _fitting(typed, [*verbs, *_options(parser)])
    verb, *before = before
    return _behind_verb(verb, verbs[verb], before, typed) if verb in verbs else []


def _behind_verb(verb: str, parser: argparse.ArgumentParser, before: list[str], typed: str) -> list[str]:
    options, places = _options(parser), [action for action in parser._actions if not action.option_strings]
    given: dict[str, str] = {}
    waiting = None  # an option, for its value
    for word in before:
        name, equals, value = word.partition("=")
        if waiting:
            given[waiting.dest], waiting = word, None
        elif word.startswith("-"):
            action = options.get(name)
            if action and action.nargs != 0:  # it takes a value
                waiting = None if equals else action
                given[action.dest] = value
        else:
            places = places[1:]
    name, equals, value = typed.partition("=")
    if waiting:
        return _fitting(typed, _values(waiting, verb, typed))
    if equals and name in options:
        return [found if found == FILE else f"{name}={found}" for found in _fitting(value, _values(options[name], verb, value))]
    if typed.startswith("-") or not (places or verb == "exec"):
        return _fitting(typed, ["--"] * (verb == "exec") + list(options))
    return _fitting(typed, _nodes(given.get("name")) if places else ["--"])


def _options(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    return {name: action for action in parser._actions for name in action.option_strings}


def _values(option: argparse.Action, verb: str, typed: str) -> list[str]:
    if option.dest == "name":
        return [] if verb == "up" else Lab.names()  # a lab that is yet to be has no name that is known
    if option.type is Path:
        return [FILE]
    if known := getattr(option.type, "known", None):  # a list with commas
        listed = typed[: typed.rfind(",") + 1]
        return [listed + word for word in known]
    return list(option.choices or ())


def _nodes(name: str | None) -> list[str]:
    """Of that lab, or of all that run."""
    nodes: list[str] = []
    for lab in [name] if name else Lab.names():
        try:
            nodes += [node.name for node in Lab.load(lab).topology.nodes]
        except LabError:
            continue
    return list(dict.fromkeys(nodes))


def _fitting(typed: str, words: list[str]) -> list[str]:
    return [word for word in words if word == FILE or word.startswith(typed)]
