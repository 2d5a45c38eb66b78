#!/usr/bin/env python3
"""Compares echo servers by what they cost: CPU time per request, memory, system calls.

Every server runs pinned to one core, the load client to another. Rounds are short and interleaved,
their order rotates, and a ratio is taken within a round only: what disturbs the machine for longer
than a second or two disturbs both sides of it. Every measurement has a fresh server process, since
the chance by which a process lies in memory is worth a percent or two of its speed. The reference
runs twice in each round: the ratio of the two (A/A) shows what is noise.
"""

import argparse
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from servers import (BenchError, client_command, end_upon_signals, in_child, pick_cores,
                     raise_descriptor_limit, run_client, running)

REFERENCE = "reference"
AGAIN = "reference (A/A)"
IDLE_CONNECTIONS = 10000
SYSCALL_REQUESTS = 200000

# The load client's arguments, and what the reference is started with: the receive size decides the
# cost of large messages, and it cannot find a better one by itself.
WORKLOADS = {
    "ping-pong": (["--connections", 1], []),
    "64x64": (["--connections", 64], []),
    "1000x64": (["--connections", 1000], []),
    "64x64x16": (["--connections", 64, "--depth", 16], []),
    "4x1MiB": (["--connections", 4, "--size", 1 << 20], ["--buffer", "65536"]),
    "churn": (["--connections", 64, "--churn"], []),
    # Clients that go with RST: an error for the server, where churn gives it an end of stream.
    "churn-reset": (["--connections", 64, "--churn", "--reset"], []),
}
SPECIAL = ("idle", "syscalls")
ONLY_WHEN_NAMED = ("churn-reset",)


class Bench:
    def __init__(self, options):
        self.options = options
        self.server_core, self.client_core = pick_cores()
        self.servers = {REFERENCE: [options.reference, "--port", "0"]}
        if options.weir:
            self.servers["weir"] = [options.weir, "--port", "0", "--threads", "1"]
        for name, command in options.server:
            self.servers[name] = command if "--port" in command else f"{command} --port 0"

    def command(self, name, extra=()):
        """The command of a server; `extra` is for the reference alone."""
        if name in (REFERENCE, AGAIN):
            return self.servers[REFERENCE] + list(extra)
        return self.servers[name]

    def say(self, text):
        print(text, file=sys.stderr, flush=True)

    # CPU per request

    def measure(self, name, workload):
        arguments, reference_arguments = WORKLOADS[workload]
        with running(self.command(name, reference_arguments), self.server_core) as server:
            timing = ["--duration", self.options.seconds, "--warmup", self.options.seconds / 4]
            command = client_command(self.options.load_client, server, arguments + timing)
            return run_client(command, self.client_core)

    def run_rounds(self, workloads):
        """{workload: {server: [result of round 1, ...]}}"""
        names = [REFERENCE, AGAIN] + [name for name in self.servers if name != REFERENCE]
        results = {workload: {name: [] for name in names} for workload in workloads}
        for number in range(self.options.rounds):
            first = number % len(names)
            for workload in workloads:
                for name in names[first:] + names[:first]:
                    result = self.measure(name, workload)
                    results[workload][name].append(result)
                    self.say(f"round {number + 1}/{self.options.rounds}  {workload:<11} {name:<16}"
                             f" {result['cpu_us_per_request']:9.3f} us CPU per request"
                             f" {result['requests_per_second']:11.0f} requests/s")
        return results

    # Memory per idle connection

    def measure_idle(self, name):
        """Bytes of resident user memory per connection: new ones, and after one echo on each."""
        found = {}
        for key, extra in (("new", []), ("after one echo", ["--idle-echo"])):
            with running(self.command(name), self.server_core) as server:
                before = server.resident_kib()
                arguments = ["--idle", "--connections", IDLE_CONNECTIONS, "--duration", 60] + extra
                client = subprocess.Popen(
                    client_command(self.options.load_client, server, arguments),
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                    preexec_fn=in_child(self.client_core))
                try:
                    if client.stdout.readline().split() != [b"idle", b"%d" % IDLE_CONNECTIONS]:
                        raise BenchError(client.communicate(timeout=30)[1].decode().strip())
                    time.sleep(0.2)  # the last ones are accepted
                    after = server.resident_kib()
                    client.communicate(timeout=30)  # closes its stdin, which ends it
                finally:
                    client.kill()
                    client.wait()
            found[key] = (after - before) * 1024 / IDLE_CONNECTIONS
            self.say(f"idle  {name:<16} {key:<15} {found[key]:7.0f} bytes per connection")
        return found

    def run_idle(self):
        if not raise_descriptor_limit(IDLE_CONNECTIONS + 200):
            return f"skipped: the limit of open files is below {IDLE_CONNECTIONS} (ulimit -Hn)"
        return {name: self.measure_idle(name) for name in self.servers}

    # System calls

    def count_syscalls(self, name):
        with running(self.command(name), self.server_core) as server:
            arguments = ["--connections", 64, "--requests", SYSCALL_REQUESTS]
            client = client_command(self.options.load_client, server, arguments)
            with tempfile.NamedTemporaryFile() as output:
                if self.options.syscall_counter == "perf":
                    run_client(["perf", "stat", "-x,", "-e", "raw_syscalls:sys_enter", "-p",
                                str(server.pid), "-o", output.name, "--"] + client,
                               self.client_core)
                    count = int(re.search(r"^(\d+),", output.read().decode(), re.MULTILINE)[1])
                else:
                    count = self.count_with_strace(server, client, output)
        self.say(f"system calls  {name:<16} {count / SYSCALL_REQUESTS:7.4f} per request")
        return count / SYSCALL_REQUESTS

    def count_with_strace(self, server, client, output):
        strace = subprocess.Popen(
            ["strace", "-c", "-U", "calls,name", "-f", "-p", str(server.pid), "-o", output.name],
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=in_child(None))
        try:
            if b"attached" not in strace.stderr.readline():
                raise BenchError("strace cannot attach")
            run_client(client, self.client_core)
        finally:
            strace.send_signal(signal.SIGINT)
            strace.communicate(timeout=30)
        return int(re.search(r"^\s*(\d+)\s+total", output.read().decode(), re.MULTILINE)[1])

    def run_syscalls(self):
        self.options.syscall_counter = pick_syscall_counter()
        if self.options.syscall_counter is None:
            return "skipped: neither `perf stat -e raw_syscalls:sys_enter` nor strace works here"
        return {name: self.count_syscalls(name) for name in self.servers}


def pick_syscall_counter():
    """perf does not slow the server down; strace does, and so lets it find more work per turn."""
    if shutil.which("perf"):
        trial = subprocess.run(["perf", "stat", "-x,", "-e", "raw_syscalls:sys_enter", "true"],
                               stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if trial.returncode == 0 and re.search(rb"^[1-9]\d*,", trial.stderr, re.MULTILINE):
            return "perf"
    if shutil.which("strace"):
        trial = subprocess.run(["strace", "-c", "-U", "calls,name", "true"], stdin=subprocess.DEVNULL,
                               capture_output=True, check=False)
        if trial.returncode == 0:
            return "strace"
    return None


def busy_share(seconds=0.5):
    """The share of all cores' time that others use while we sleep."""
    def read():
        with open("/proc/stat", encoding="ascii") as stat:
            ticks = [int(field) for field in stat.readline().split()[1:9]]
        return sum(ticks), ticks[3] + ticks[4]  # all, idle and waiting
    total, idle = read()
    time.sleep(seconds)
    total_after, idle_after = read()
    return 1 - (idle_after - idle) / max(1, total_after - total)


def summarize(results):
    """{workload: {server: figures}}: medians over the rounds, ratios pair by pair."""
    summary = {}
    for workload, by_server in results.items():
        costs = {name: [result["cpu_us_per_request"] for result in rounds]
                 for name, rounds in by_server.items()}
        summary[workload] = {}
        for name, rounds in by_server.items():
            ratios = [cost / base for cost, base in zip(costs[name], costs[REFERENCE])]
            summary[workload][name] = {
                "cpu_us_per_request": statistics.median(costs[name]),
                "ratio": statistics.median(ratios),
                "ratio_min": min(ratios),
                "ratio_max": max(ratios),
                "requests_per_second": statistics.median(
                    result["requests_per_second"] for result in rounds),
                "p50_us": statistics.median(result["p50_us"] for result in rounds),
                "p99_us": statistics.median(result["p99_us"] for result in rounds),
                "rss_kib": statistics.median(result["rss_kib"] for result in rounds),
            }
    return summary


def print_summary(summary, rounds):
    if not summary:
        return
    row = "{:<11} {:<16} {:>10} {:>8}  {:<15} {:>11} {:>9} {:>9}"
    print(f"\nServer CPU (user + system) per request: median of {rounds} rounds, "
          "ratio to the reference of the same round")
    print(row.format("workload", "server", "CPU us", "ratio", "(min .. max)", "requests/s", "p50 us",
                     "p99 us"))
    for workload, by_server in summary.items():
        order = [AGAIN, REFERENCE] + [name for name in by_server if name not in (AGAIN, REFERENCE)]
        for name in order:
            figures = by_server[name]
            spread = f"({figures['ratio_min']:.3f} .. {figures['ratio_max']:.3f})"
            print(row.format(workload, name, f"{figures['cpu_us_per_request']:.3f}",
                             "" if name == REFERENCE else f"{figures['ratio']:.3f}",
                             "" if name == REFERENCE else spread,
                             f"{figures['requests_per_second']:.0f}", f"{figures['p50_us']:.1f}",
                             f"{figures['p99_us']:.1f}"))


def print_idle(idle):
    print(f"\nResident user memory per connection, {IDLE_CONNECTIONS} idle ones")
    if isinstance(idle, str):
        print(idle)
        return
    for name, found in idle.items():
        print(f"{name:<16} " + ", ".join(f"{key}: {size:.0f} B" for key, size in found.items()))


def print_syscalls(syscalls, counter):
    print("\nSystem calls per request at 64x64" + (f" (counted by {counter})" if counter else ""))
    if isinstance(syscalls, str):
        print(syscalls)
        return
    for name, count in syscalls.items():
        print(f"{name:<16} {count:.4f}")


def named_command(text):
    name, separator, command = text.partition("=")
    if not separator or not name or not command:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=COMMAND")
    return name, command


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weir", metavar="PATH", help="weir's echo server")
    parser.add_argument("--reference", metavar="PATH", required=True, help="uring_echo")
    parser.add_argument("--load-client", metavar="PATH", required=True)
    parser.add_argument("--server", metavar="NAME=COMMAND", type=named_command, action="append",
                        default=[], help="a further server to compare (may be repeated)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="measured time per run")
    parser.add_argument(
        "--workloads",
        default=",".join(w for w in (*WORKLOADS, *SPECIAL) if w not in ONLY_WHEN_NAMED),
        help="%(default)s; also: " + ", ".join(ONLY_WHEN_NAMED))
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("build/bench"),
                        help="where results.json goes (%(default)s)")
    options = parser.parse_args()
    options.workloads = options.workloads.split(",")
    for workload in options.workloads:
        if workload not in WORKLOADS and workload not in SPECIAL:
            parser.error(f"no workload is called '{workload}'")
    if options.rounds < 1 or not 0.05 <= options.seconds <= 60:
        parser.error("--rounds has to be 1 or more, --seconds from 0.05 to 60")
    options.syscall_counter = None
    return options


def main():
    options = parse_options()
    end_upon_signals()
    bench = Bench(options)
    if bench.server_core is None:
        bench.say("only one core: server and client share it, and the figures say little")

    busy = busy_share()
    if busy > 0.1:
        bench.say(f"others use {busy:.0%} of this machine: trust ratios more than figures, and A/A "
                  "says how far")

    record = {"kernel": platform.release(), "machine": platform.machine(),
              "cores": os.cpu_count(), "busy_share": busy, "rounds": options.rounds, "seconds": options.seconds,
              "commands": {name: bench.command(name) for name in bench.servers}}
    record["samples"] = bench.run_rounds([w for w in options.workloads if w in WORKLOADS])
    record["summary"] = summarize(record["samples"])
    record["idle_bytes_per_connection"] = bench.run_idle() if "idle" in options.workloads else None
    record["syscalls_per_request"] = bench.run_syscalls() if "syscalls" in options.workloads else None
    record["syscall_counter"] = options.syscall_counter

    print_summary(record["summary"], options.rounds)
    if record["idle_bytes_per_connection"] is not None:
        print_idle(record["idle_bytes_per_connection"])
    if record["syscalls_per_request"] is not None:
        print_syscalls(record["syscalls_per_request"], options.syscall_counter)
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "results.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="ascii")
    bench.say(f"\nall samples: {path}")


if __name__ == "__main__":
    try:
        main()
    except BenchError as error:
        sys.exit(f"compare.py: {error}")
    except KeyboardInterrupt:
        sys.exit("compare.py: interrupted, all servers are ended")
