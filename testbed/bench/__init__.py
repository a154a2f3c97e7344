# SPDX-License-Identifier: GPL-2.0-or-later
"""`lab bench`: the director beside its peers, in the same lab, in the same minutes.

contenders.py says who forwards, works.py what is measured, rounds.py in which order, report.py and chart.py what is
shown. flood.py and paced.py are the loads no package offers; they run in the client's namespace. cpu.py reads what the
machine spent.
"""
