#!/usr/bin/env python3
"""weir-doctor at processes that have an inspector, and at one that has none.

Usage: doctor.py WEIR_DOCTOR PROGRAMS_DIR
"""

import json
import os
import re
import sys

from planted import directory, expect, planted, run

DOCTOR, PROGRAMS = (os.path.abspath(argument) for argument in sys.argv[1:3])


def main():
    with directory() as where, planted(PROGRAMS, inspect=f"unix:{where}/inspector") as process:
        _, output = run(DOCTOR)
        row = rf"^ +{process.pid} planted +unix:{re.escape(str(where))}/inspector$"
        section = output.partition("inspectors of running processes\n")[2]
        expect(re.search(row, section, re.M), "the list of processes", output)
        told = json.loads(run(DOCTOR, "--json")[1])
        mine = {"pid": process.pid, "name": "planted", "inspector": f"unix:{where}/inspector"}
        expect(mine in told["processes"], "the list as JSON", told)

        status, output = run(DOCTOR, process.pid)
        expect(status == 0 and "2 loops, 1 of them STUCK; " in output and " busy: STUCK\n" in output
               and f"weir-top {process.pid}" in output, "the summary", output)
        status, output = run(DOCTOR, "--json", process.pid)
        told = json.loads(output)
        expect(status == 0 and mine.items() <= told.items() and told["loops"] == 2 and
               told["stuck"] == 1 and told["connections"] == 2, "the summary as JSON", output)
    status, output = run(DOCTOR, os.getpid())
    expect(status == 1 and "has no inspector: start it with WEIR_INSPECT=" in output, "none", output)


main()
