#!/usr/bin/env python3
"""weir-top against a program with planted faults, and against all that is none.

Usage: top.py WEIR_TOP PROGRAMS_DIR
"""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading

from planted import DEADLOCK, SLOW, STARVED, directory, eventually, expect, planted, run

TOP, PROGRAMS = (os.path.abspath(argument) for argument in sys.argv[1:3])


def once(*arguments, **options):
    return run(TOP, "--once", *arguments, **options)


def what_is_planted(process):
    """Each fault is named with function, file, line and reason."""
    def seen():
        status, output = once(process.pid)
        expect(status == 0, "weir-top --once PID", output)
        full = re.search(r"^! teller-127\.0\.0\.1:.* connected ", output, re.M)
        return output if full and SLOW.search(output) else None

    output = eventually("the send that waits, and its connection", seen)
    expect(re.search(r"^ +2 +#+ +[\d.]+ s +" + re.escape(DEADLOCK), output, re.M), "two by a mutex", output)
    expect(re.search(r"^ +3 +#+ +[\d.]+ s +" + re.escape(STARVED), output, re.M), "three by a channel", output)
    expect(re.search(r"^! +\d+ +busy +STUCK in one turn for [\d.]+ s, thread \d+ ", output, re.M),
           "the stuck loop", output)
    expect(f"{process.pid} planted: 2 loops, 1 of them STUCK; " in output, "the summary", output)
    expect(re.search(r"^ +[\d.]+ s +main +" + re.escape(DEADLOCK) + "  <  deadlock at ", output, re.M),
           "the oldest waits", output)


def as_json(process):
    status, output = once("--json", process.pid)
    expect(status == 0, "weir-top --once --json", output)
    told = json.loads(output)
    expect(told["pid"] == process.pid, "its PID", output)
    expect(["busy"] == [loop["name"] for loop in told["loops"] if loop["state"] == "STUCK"], "stuck", output)
    locks = [wait for wait in told["oldest"] if wait["waits_for"] == "Mutex::lock"]
    expect(len(locks) == 2 and locks[0]["above"][0]["function"] == "deadlock", "locks", output)
    expect(told["places"][0]["children"][0]["count"] == 3, "counts", output)
    expect(any(connection["pending"] > connection["low"] for connection in told["connections"]),
           "marks", output)


def found_without_argument(process):
    """Alone, or in the list with those of others."""
    status, output = once()
    expect(status == 0 and re.search(rf"^ *{process.pid} +planted", output, re.M), "no argument", output)


class Stranger:
    """Answers whoever comes with the same bytes."""

    def __init__(self, answer):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.serve, args=(answer,), daemon=True).start()

    def serve(self, answer):
        peer, _ = self.listener.accept()
        with peer:
            peer.recv(4096)
            with contextlib.suppress(OSError):
                peer.sendall(answer)


def http(body, status="200 OK"):
    return (f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}").encode()


class Inspector:
    """One that answers with what it is given."""

    def __init__(self, **answers):
        self.answers = answers
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        peer, _ = self.listener.accept()
        # It resets the connection once it has all.
        with peer, peer.makefile("rb") as lines, contextlib.suppress(ConnectionResetError):
            for line in lines:
                if line.startswith(b"GET /"):
                    peer.sendall(http(self.answers[line.split()[1].decode()[1:]]))


def what_others_tell():
    """Names of tasks and connections, what a stuck loop's thread does, how late timers fire."""
    leaf = {"file": "a.cpp", "line": 7, "waits_for": "read", "children": []}
    tasks = [{"loop": 1, "name": "main", "tasks": [
        {**leaf, "function": 'serve "login" [web-1.2.3.4:5#6]', "name": "login", "waiting_ms": 1500},
        {**leaf, "function": "serve [web-1.2.3.4:5#7]", "waiting_ms": 500},
        {**leaf, "function": "odd\u001b[2J\u009b1m\u00e4", "waiting_ms": 1}]},
        {"loop": 2, "name": "b", "tasks": [], "thread": {
            "state": "computes", "stack": ["spin() at b.cpp:3", "main"],
            "awaited_last": {"function": "hash", "file": "b.cpp", "line": 2},
            "spawned_by": {"function": "main", "file": "b.cpp", "line": 9}}}]
    loops = [{"number": 1, "name": "main", "state": "runs"},
             {"number": 2, "name": "b", "state": "STUCK", "thread": 5, "turn_ms": 2000}]
    metrics = ('weir_loop_lag_seconds_bucket{loop="1",name="main",le="+Inf"} 8\n'
               'weir_loop_lag_seconds_sum{loop="1",name="main"} 0.004\n'
               'weir_loop_lag_seconds_count{loop="1",name="main"} 8\n')
    answers = {"tasks": json.dumps(tasks), "loops": json.dumps(loops), "connections": "[]", "metrics": metrics}
    status, output = once(Inspector(**answers).address)
    expect(status == 0, "an inspector", output)
    for pattern in (r"^ +2 +#+ +1\.500 s +serve at a\.cpp:7: read$",
                    r'^ +1\.500 s +main +serve at a\.cpp:7: read  "login"  \[web-1\.2\.3\.4:5#6\]$',
                    r"^ +1 +main +runs +0 +0 +0\.500 ms ",
                    r"^! +2 +b +STUCK in one turn for 2\.000 s, thread 5 ",
                    r"^ +the thread computes\n +its task awaited last in hash at b\.cpp:2\n"
                    r" +its task was spawned by main at b\.cpp:9\n +spin\(\) at b\.cpp:3\n",
                    "odd\\?\\[2J\\?1m\u00e4 at a"):
        expect(re.search(pattern, output, re.M), pattern, output)
    told = json.loads(once("--json", Inspector(**answers).address)[1])
    expect(told["loops"][1]["view"]["stack"] == ["spin() at b.cpp:3", "main"] and
           told["oldest"][0]["name"] == "login", "the same as JSON", told)


def strangers():
    for answer, part in ((b"220 mail\r\n\r\n", "does not speak HTTP"),
                         (b"x" * 100_000, "does not speak HTTP"),
                         (b"", "closed the connection"),
                         (http("no", "404 Not Found"), 'answers "404 Not Found"'),
                         (http("<html>"), "no JSON"),
                         (http('[{"a": "\\u00'), "no JSON"),
                         (http("[" * 100_000), "nested too deep"),
                         (http("[" * 1000 + "]" * 1000), "is no list"),
                         (http("{}"), "is no list"),
                         (http("[1, 2]"), "is no list"),
                         (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n", "no length"),
                         (b"HTTP/1.1 200 OK\r\n\r\n[]", "no length"),
                         (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[", "within an answer")):
        status, output = once(Stranger(answer).address)
        expect(status == 1 and output.count("\n") == 1 and part in output,
               f"what it says of {answer[:60]}", output)


def what_is_in_the_way():
    gone = subprocess.Popen(["true"])
    gone.wait()
    for status, part, arguments in (
            (1, f"there is no process {gone.pid}", [gone.pid]),
            (1, "has no inspector: start it with WEIR_INSPECT=", [os.getpid()]),
            (1, "nobody answers at unix:/nowhere/socket: No such file", ["/nowhere/socket"]),
            (1, "nobody answers at 127.0.0.1:1: Connection refused", ["127.0.0.1:1"]),
            (1, "names no host and port", ["nonsense"]),
            (2, "usage: ", ["--xml"]), (2, "usage: ", ["1", "2"])):
        got, output = once(*arguments)
        expect(got == status and part in output, f"weir-top --once {arguments}", output)
    status, output = run(TOP, "--json")
    expect(status == 2 and "--json goes with --once" in output, "--json alone", output)
    status, output = run(TOP, "127.0.0.1:1", stdin=subprocess.DEVNULL)
    expect(status == 1 and "no terminal: use --once" in output, "without a terminal", output)
    status, output = run(TOP, "--help")
    expect(status == 0 and output.startswith("usage: "), "--help", output)


def another_user(process):
    if os.geteuid() != 0:
        print("skipped: not root: nobody else's process to look at")
        return
    try:
        status, output = once(process.pid, user=65534, group=65534, extra_groups=[], cwd="/")
    except PermissionError:
        print("skipped: nobody else may start weir-top where it was built")
        return
    expect(status == 1 and "is another user's: look at it as that user, or as root" in output,
           "another user's", output)


class Tmux:
    """A terminal with a shell in it."""

    def __init__(self, where):
        self.where = where
        environment = {**os.environ, "PS1": "", "ENV": ""}
        subprocess.run(["tmux", "-S", where, "-f", "/dev/null", "new-session", "-d", "-x", "100",
                        "-y", "40", "sh"], check=True, env=environment)

    def __call__(self, *words):
        return run("tmux", "-S", self.where, *words)[1]

    def type(self, line):
        self("send-keys", "-l", line)
        self("send-keys", "Enter")

    def shows(self, what, pattern):
        return eventually(what, lambda: (lambda text: text if re.search(pattern, text, re.M) else None)(
            self("capture-pane", "-p")))


def in_a_terminal(process, where):
    if shutil.which("tmux") is None:
        print("skipped: tmux is not here")
        return
    tmux = Tmux(where / "tmux")
    try:
        tmux.type(f"{TOP} {process.pid}; echo ended=$? $(stty -a | grep -o '[-]*icanon')")
        text = tmux.shows("the first drawing", r"^ *\d+ +busy +STUCK")
        expect(text.startswith(f"weir-top  {process.pid} planted"), "the title", text)
        expect("q quit" in text and DEADLOCK.split(" at ")[0] in text, "the page", text)
        tmux("send-keys", "o")
        text = tmux.shows("one part alone", r"\A.*\n.*\noldest waits")
        expect("busiest connections" not in text, "one part alone", text)
        tmux("send-keys", "a")
        tmux.shows("all again", "busiest connections")
        tmux("resize-window", "-x", "60", "-y", "12")
        tmux.shows("a smaller one", r"(?s)\Aweir-top  (?=.*busiest connections).*q quit")
        tmux("resize-window", "-x", "30", "-y", "12")
        tmux.shows("one that is too small", "weir-top needs 40 x 8")
        tmux("resize-window", "-x", "100", "-y", "30")
        tmux.shows("a larger one", r"^ *\d+ +busy +STUCK")
        tmux("send-keys", "q")
        text = tmux.shows("the end", r"^ended=0 icanon")
        expect("STUCK" not in text, "the terminal as it was", text)
        for end, name in (("C-c", "Ctrl-C"), (None, "the end of the process")):
            tmux.type("clear")
            tmux.type(f"{TOP} {process.pid}; echo ended=$? $(stty -a | grep -o '[-]*icanon')")
            tmux.shows("the next drawing", r"^ *\d+ +busy +STUCK")
            if end is not None:
                tmux("send-keys", end)
                tmux.shows(name, r"^ended=0 icanon")
            else:
                process.kill()
                process.wait()
                text = tmux.shows(name, r"^ended=1 icanon")
                expect(f"weir-top: process {process.pid} has ended" in text, name, text)
        tmux.type(f"TERM=unheard-of {TOP} 127.0.0.1:1")
        tmux.shows("an unknown terminal", "\"unheard-of\" cannot be drawn on: use --once")
    finally:
        tmux("kill-server")


def main():
    if not os.access(TOP, os.X_OK):
        print("skipped: weir-top was not built")
        return
    strangers()
    what_others_tell()
    what_is_in_the_way()
    with directory() as where:
        with planted(PROGRAMS, inspect=f"unix:{where}/inspector") as process:
            what_is_planted(process)
            as_json(process)
            found_without_argument(process)
            another_user(process)
            status, output = once(f"{where}/inspector")
            expect(status == 0 and DEADLOCK in output, "by its path", output)
            in_a_terminal(process, where)
    # One that is made by the program itself, beside another server: which it is, it says.
    with planted(PROGRAMS, "127.0.0.1:0") as process:
        status, output = once(process.pid)
        expect(status == 0 and DEADLOCK in output, "by TCP", output)


main()
