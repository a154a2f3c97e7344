# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes a failing list small: delta debugging (Zeller and Hildebrandt, 2002), asking about many candidates at once."""

from collections.abc import Callable, Sequence


def shrink(items: Sequence, fail: Callable[[list[list]], list[bool]]) -> list:
    """The shortest list found that still fails, in the order of `items`. `fail` tells of each candidate whether it does.

    `fail` may end the search early by raising StopIteration; what was found until then is the result.
    """
    items, pieces = list(items), 2
    try:
        while len(items) >= 1:
            pieces = min(pieces, len(items))
            cuts = [len(items) * i // pieces for i in range(pieces + 1)]
            without = [items[:begin] + items[end:] for begin, end in zip(cuts, cuts[1:])]
            smaller = next((candidate for candidate, failed in zip(without, fail(without)) if failed), None)
            if smaller is not None:
                items, pieces = smaller, max(pieces - 1, 2)
            elif pieces == len(items):
                break
            else:
                pieces = min(2 * pieces, len(items))
    except StopIteration:
        pass
    return items
