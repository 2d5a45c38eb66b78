#!/usr/bin/env python3
"""weir-gdb.py at a process with planted faults, and at its core: the same tree as the inspector's.

Usage: debugger.py WEIR_GDB PROGRAMS_DIR
"""

import os
import pathlib
import re
import shutil
import socket
import sys

from planted import DEADLOCK, SOURCE, STARVED, directory, expect, place, planted, run

SCRIPT, PROGRAMS = (os.path.abspath(argument) for argument in sys.argv[1:3])
COMMANDS = ("weir tasks", "weir conns", "weir loops", "weir events", "print shown::an_address",
            "print shown::a_chunk", "print shown::a_task")


def gdb(*arguments, commands=COMMANDS):
    words = [word for command in (f"source {SCRIPT}", *commands) for word in ("-ex", command)]
    return run("gdb", "-q", "-nx", "-batch", *arguments, *words)[1]


def tree_of(text):
    """The lines of tasks, without for how long and whom they read."""
    return [re.sub(r" \[\S+\]|, [\d.]+ s", "", line) for line in re.findall(r"^  .* s(?:$|: .*| \(spawned by .*)", text, re.M)]


def from_inspector(path):
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(path)
        peer.sendall(b"GET /tasks HTTP/1.1\r\nConnection: close\r\n\r\n")
        return b"".join(iter(lambda: peer.recv(65536), b"")).decode()


def look(output, tree, program):
    what = f"what gdb says of the {program}"
    expect(re.search(r'^loop \d+ "main" \((io_uring|epoll)\): runs in thread \d+ ', output, re.M), what, output)
    expect(re.search(r'^loop \d+ "busy" .*: runs in thread \d+ .*; \d+ turns, ', output, re.M), what, output)
    raced = place("race", "when_any(next_job")
    for line in (DEADLOCK, STARVED, raced):
        function, _, reason = line.partition(": ") if line != raced else (line, "", "")
        expect(re.search(re.escape(function) + r", [\d.]+ s" + (": " + re.escape(reason) if reason else ""),
                         output), what + f": {line}", output)
    # The blocked loop does not answer the inspector; gdb sees its one task, too.
    mine = tree_of(output)
    expect(mine[:len(tree)] == tree, what + " is what the inspector says",
           "\n".join(mine) + "\n\n" + "\n".join(tree))
    expect(len(re.findall(r"^  127\.0\.0\.1:\d+#\d+: \d+ of \d+ unread, \d+ of \d+ pending, ", output, re.M)) == 2,
           what + ": connections", output)
    expect(re.search(r'^loop \d+ "busy" .*\n  an operand, [\d.]+ s: runs now(?: \(spawned by .*\))?$', output, re.M), what + ": who runs", output)
    for value in ("= [::1]:7000", '= a chunk of 6 bytes: "PING\\x0d\\x0a"', "= a task that has not awaited anything"):
        expect(value in output, what + f": {value}", output)


    resumed = r"^  [\d.]+ s ago: task [0-9a-f]+ resumed in wait_for_both at " + re.escape(SOURCE) + r":\d+$"
    expect(re.search(resumed, output, re.M), what + ": events", output)
    expect(re.search(r"^  [\d.]+ s ago: task [0-9a-f]+ began$", output, re.M), what + ": events", output)


def look_at_probes(program):
    """By what the linker keeps of them: nobody may ask this kernel to look."""
    if shutil.which("readelf") is None:
        print("skipped: readelf is not here")
        return
    notes = run("readelf", "-n", program)[1]
    if "stapsdt" not in notes:
        print("skipped: weir was built without <sys/sdt.h>")
        return
    for probe in ("resumed", "suspended", "began", "ended", "opened", "broke", "closed", "stalled"):
        expect(f"Provider: weir\n    Name: {probe}\n" in notes, f"the probe {probe}", notes)


def main():
    for tool in ("gdb", "gcore"):
        if shutil.which(tool) is None:
            print(f"skipped: {tool} is not here")
            return
    program = os.path.join(PROGRAMS, "planted")
    if "python" not in run("gdb", "-nx", "-batch", "-ex", "python print('python')")[1]:
        print("skipped: this gdb has no Python")
        return
    with directory() as where, planted(PROGRAMS, inspect=f"unix:{where}/inspector") as process:
        status, output = run("gcore", "-o", where / "core", process.pid)
        core = where / f"core.{process.pid}"
        if status != 0 or not core.exists():
            print("skipped: gcore may not look into a process here: " + output.strip().rpartition("\n")[2])
            return
        tree = tree_of(from_inspector(f"{where}/inspector"))
        look(gdb(program, core), tree, "core")
        look(gdb("-p", process.pid), tree, "process")
        other = gdb("-p", process.pid, commands=("kill", "weir tasks"))
        expect("weir: there is no process" in other, "without a process", other)
    look_at_probes(program)
    expect("weir: there is no symbol" in gdb("/bin/true", commands=("starti", "weir tasks")), "not of weir")
    expect(b"/gdb/auto-load/weir-gdb.py\0" in pathlib.Path(program).read_bytes(),
           "the program says which script goes with it")


main()
