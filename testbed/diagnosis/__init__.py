# SPDX-License-Identifier: GPL-2.0-or-later
"""`lab doctor` of a live lab: finds each of the classical mistakes, names it, and says what to type.

facts.py looks (once at each thing), the modules beside it judge, a function a mistake, and live.py, which the verb calls, has the
table of them. They go by what is there, not by what the lab was made of: people change it by hand, that is what a lab is for.
"""
