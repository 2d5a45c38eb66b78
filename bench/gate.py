#!/usr/bin/env python3
"""What noise does not touch: instructions, system calls, allocations and bytes, held against gate.json.

gate.py BUILD_DIRECTORY [--only TEXT] [--write]

Instructions are callgrind's, as instructions.py counts them (to about 1 %: the least of several tries
counts), system calls strace's, of one connection; allocations and idle bytes the server counts itself.
A figure more than 2 % above that in gate.json fails. `--write` puts down what was measured: for a commit
that says why a figure grew, or that holds what was gained.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import footprint
import instructions
from servers import BenchError, Server, client_command, end_upon_signals, pick_cores, run_client, running

FIGURES = pathlib.Path(__file__).with_name("gate.json")
TOLERANCE = 1.02
TRIES = 5
COMPILER = "12"  # major version of the g++ whose figures these are: others' differ by some percent
FEATURES = ["plain", "high_water", "sender", "two_segments_once", "send_view", "send_string",
            "head_and_body", "when_any", "timeout", "as_tuple", "nested_task", "protocol"]
ON_EPOLL = ["plain", "protocol"]  # of the others' path nothing is the engine's
FIRST_CONNECTIONS = 50            # what these take is the process's
IDLE_CONNECTIONS = 500
ECHO = ["--lines", "--connections", 64]
CHURN = ["--churn", "--connections", 8]


def least_until(enough, measure, tries=TRIES):
    """The least of some tries; no more of them than show that it is not above `enough`, if that is known."""
    least = measure()
    for _ in range(tries - 1):
        if enough is not None and least <= enough:
            break
        least = min(least, measure())
    return least


class Gate:
    """As footprint.py wants what it measures with: `cores` and `client_of`."""

    def __init__(self, build):
        self.server = str(build / "bench/weir_features")
        self.client = str(build / "bench/load_client")
        self.cores = pick_cores()

    def client_of(self, _):
        return self.client

    def running(self, engine, feature):
        return running(self.command(engine, feature), self.cores[0])

    def command(self, engine, feature):
        return [self.server, "--engine", engine, "--feature", feature]

    def load(self, server, arguments, requests):
        run_client(client_command(self.client, server, arguments + ["--requests", requests],
                                  measure_cpu=False), self.cores[1])

    # Each gives a figure; `enough` is what it may be, or None.

    def instructions(self, engine, feature, arguments, enough):
        options = instructions.Options(self.client, requests=3000, repeat=1, arguments=arguments)
        return least_until(enough, lambda: instructions.measure(self.command(engine, feature), options, self.cores)[0])

    def allocations(self, engine, feature, arguments, _):
        with self.running(engine, feature) as server:
            self.load(server, arguments, 2000)
            first = self.settled(server)[0]
            self.load(server, arguments, 2000)
            few = self.settled(server)[0]
            self.load(server, arguments, 6000)
            return max(0.0, (self.settled(server)[0] - few - (few - first)) / 4000)

    def idle_bytes(self, engine, feature, arguments, enough):
        """How many there were together decides how many blocks are kept for the next copies."""
        if enough is None:
            return max(self.idle_bytes_once(engine, feature, arguments) for _ in range(TRIES))
        return least_until(enough, lambda: self.idle_bytes_once(engine, feature, arguments))

    def idle_bytes_once(self, engine, feature, arguments):
        """Of a connection that has done one echo, in what the program has allocated."""
        with self.running(engine, feature) as server:
            with footprint.holding(FIRST_CONNECTIONS, None, self, server, True, arguments):
                self.settled(server)
            before = self.settled(server)[1]
            with footprint.holding(IDLE_CONNECTIONS, None, self, server, True, arguments):
                return (self.settled(server)[1] - before) / IDLE_CONNECTIONS

    def system_calls(self, engine, feature, arguments, enough):
        def count(requests):
            with self.running(engine, feature) as server, tempfile.NamedTemporaryFile() as output:
                client = client_command(self.client, server, arguments + ["--requests", requests])
                return footprint.count_with_strace(server, client, output, self)
        return least_until(enough, lambda: (count(3000) - count(1000)) / 2000, 2)

    @staticmethod
    def settled(server):
        """Allocations and bytes of the server, once two looks at them say the same."""
        last = None
        while True:
            os.kill(server.pid, signal.SIGUSR1)
            now = [int(number) for number in server.read_line().split()]
            if now == last:
                return now
            last = now
            time.sleep(0.1)


def figures(gate):
    """Name, how it is measured, what lacks for it."""
    no_valgrind = None if shutil.which("valgrind") else "valgrind is not installed"
    no_strace = None if shutil.which("strace") else "strace is not installed"
    for engine, features in (("uring", FEATURES), ("epoll", ON_EPOLL)):
        for feature in features:
            yield f"{engine} {feature}: instructions per request", gate.instructions, (engine, feature, ECHO), no_valgrind
            yield f"{engine} {feature}: allocations per request", gate.allocations, (engine, feature, ECHO), None
            yield f"{engine} {feature}: bytes of an idle connection", gate.idle_bytes, (engine, feature, ["--lines"]), None
        yield (f"{engine} plain: system calls per request of a ping-pong", gate.system_calls,
               (engine, "plain", ["--connections", 1]), no_strace)
        yield (f"{engine} plain: system calls per short connection", gate.system_calls,
               (engine, "plain", ["--churn", "--connections", 1]), no_strace)
        yield f"{engine} plain: instructions per short connection", gate.instructions, (engine, "plain", CHURN), no_valgrind
        yield f"{engine} plain: allocations per short connection", gate.allocations, (engine, "plain", CHURN), None


def refused(gate, engine):
    try:
        with gate.running(engine, "plain"):
            return None
    except BenchError as error:
        return str(error)


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--only", default="", metavar="TEXT", help="figures whose names have it")
    parser.add_argument("--write", action="store_true", help="put down what was measured")
    return parser.parse_args()


def main():
    options = parse_options()
    end_upon_signals()
    compiler = subprocess.run(["g++", "-dumpversion"], capture_output=True, text=True, check=False).stdout.strip()
    if compiler != COMPILER:
        print(f"skipped: the figures are those of g++ {COMPILER}, here is '{compiler}'\n0 passed, 0 failed, 1 skipped")
        return 0
    Server.log = subprocess.DEVNULL
    known = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    gate = Gate(options.build)
    lacking = {engine: refused(gate, engine) for engine in ("uring", "epoll")}
    passed = failed = skipped = 0
    for name, measure, arguments, reason in figures(gate):
        if options.only not in name:
            continue
        reason = reason or lacking[arguments[0]]
        before = known.get(name)
        limit = None if before is None else before * TOLERANCE + 0.005
        try:
            now = None if reason else measure(*arguments, None if options.write else limit)
        except BenchError as error:  # callgrind is not to be asked here, say
            now, reason = None, str(error)
        if now is None:
            print(f"skipped  {name}: {reason}", flush=True)
            skipped += 1
            continue
        good = limit is not None and now <= limit
        print(f"{'' if good else 'WORSE' if limit else 'NEW':8} {name:62} {now:10.2f}"
              + ("" if before is None else f"  was {before:.2f}"), flush=True)
        passed += good
        failed += not good
        if options.write:
            known[name] = round(now, 2)
    if options.write:
        FIGURES.write_text(json.dumps(known, indent=1) + "\n")
        return 0
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return int(failed > 0)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        sys.exit(f"gate.py: {error}")
    except KeyboardInterrupt:
        sys.exit("gate.py: interrupted, the server is ended")
