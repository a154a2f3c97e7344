#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Which captures of a folder of them (default: ../shared/golden beside the checkout) are not among the golden cases here.

A line for each missing one, and how many of each family are here. Exit code 1 when one is missing, 0 when none is or there is no such folder.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def cases(folder: Path) -> set[str]:
    return {f"{case.parent.parent.name}/{case.parent.name}" for case in folder.glob("*/*/case.json")} | {
        f"{case.parent.parent.name}/{case.parent.name}" for case in folder.glob("*/*/steps.json")}


def main() -> int:
    elsewhere = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parents[2] / "shared" / "golden"
    if not elsewhere.is_dir():
        print(f"{elsewhere}: no such folder, nothing to compare with")
        return 0
    there, here = cases(elsewhere), cases(HERE)
    for name in sorted(there - here):
        print(f"missing {name}")
    for family in sorted({name.split("/")[0] for name in there}):
        mine = {name for name in there if name.startswith(f"{family}/")}
        print(f"{family:<10} {len(mine & here):>4} of {len(mine)}")
    return 1 if there - here else 0


if __name__ == "__main__":
    sys.exit(main())
