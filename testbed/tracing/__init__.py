# SPDX-License-Identifier: GPL-2.0-or-later
"""`lab trace`: one request, hop by hop.

wires.py sees frames, headers.py reads them, journeys.py follows each packet from hop to hop and compares, words.py says what
happened; report.py prints that, drawing.py draws it, and request.py, which the verb calls, does it all in turn.
"""
