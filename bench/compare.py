#!/usr/bin/env python3
"""Compares servers by what they cost: CPU time per request, latency, memory, system calls, instructions.

Every server runs pinned to one core, the load client to another. Rounds are short and interleaved,
their order rotates, and a ratio is taken within a round only: what disturbs the machine for longer
than a second or two disturbs both sides of it. Every measurement has a fresh server process, since
the chance by which a process lies in memory is worth a percent or two of its speed. In each round the
first server runs twice: the ratio of the two (A/A) shows what is noise. bench/README.md tells more.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

import chart
import footprint
import report
import tls
from servers import (BenchError, Server, client_command, end_upon_signals, pick_cores,
                     raise_descriptor_limit, run_client, running)
from workloads import GROUPS, WORKLOADS

# What ratios are taken to: the first of these that takes part in the workload.
BASES = ("reference-epoll-tls", "weir-uring-tls", "reference-uring", "reference-epoll", "weir-uring")
AGAIN = "A/A"
SPARE_DESCRIPTORS = 200
MOST_FAILURES = 2  # of a server at a workload; then it is left out of further rounds
SLOW_MEASURES = ("compile",)  # in a quick run not of the peers
SLOW_TLS_MEASURES = ("compile", "instructions_per_request")  # likewise, of those with TLS
FIGURES = ("cpu_us_per_request", "user_us_per_request", "system_us_per_request",
           "requests_per_second", "p50_us", "p99_us", "p999_us", "max_us", "rss_kib")
TLS_FIGURES = ("records_sent", "records_received", "flood_handshakes_per_second")


class NoRequest(BenchError):
    """Something else had the core all the time."""


class Progress:
    """One line on a terminal, over and over; elsewhere a line whenever a part is done."""

    def __init__(self):
        self.live = sys.stderr.isatty()
        self.started = time.monotonic()

    def elapsed(self):
        return time.monotonic() - self.started

    def now(self, text):
        if self.live:
            print(f"\r\033[K{self.elapsed():5.0f} s  {text}", end="", file=sys.stderr, flush=True)

    def done(self, text):
        end = "\r\033[K" if self.live else ""
        print(f"{end}{self.elapsed():5.0f} s  {text}", file=sys.stderr, flush=True)


class Bench:
    def __init__(self, options, directory):
        self.options = options
        self.build = options.build.resolve()
        self.cores = pick_cores()
        self.progress = Progress()
        self.failures = {}  # (workload or measure, server): reasons
        raise_descriptor_limit(max(w.most_connections for w in WORKLOADS.values())
                               + SPARE_DESCRIPTORS)
        raise_descriptor_limit(resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        self.limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.idle_connections = min(options.idle_connections, self.limit - SPARE_DESCRIPTORS)
        # Each is a handshake, and much memory of the client.
        self.idle_tls_connections = min(200 if options.quick else 1000, self.idle_connections)
        entries = json.loads((self.build / "bench/servers.json").read_text())
        for name, command in options.server:
            entries.append({"name": name, "kind": "echo", "command": shlex.split(command)})
        entries.append(tls.CIPHER)
        self.certificates = {}
        if any(entry["kind"] == "tls" and "skipped" not in entry for entry in entries):
            try:
                self.certificates = tls.make_certificates(directory)
            except BenchError as error:
                entries = [entry | {"skipped": str(error)} if entry["kind"] == "tls" else entry
                           for entry in entries]
        wanted = [entry for entry in entries if self.is_wanted(entry["name"])]
        self.entries = [entry for entry in wanted if "skipped" not in entry]
        self.skipped = {entry["name"]: entry["skipped"] for entry in wanted if "skipped" in entry}

    def is_wanted(self, name):
        return not self.options.servers or any(re.search(f"^(?:{pattern})", name)
                                               for pattern in self.options.servers)

    def command_of(self, entry, certificate="ecdsa"):
        return entry["command"] + (self.certificates[certificate] if entry["kind"] == "tls" else [])

    def client_of(self, entry):
        with_tls = entry["kind"] in ("tls", "plain", "cipher")
        return str(self.build / "bench" / ("tls_load" if with_tls else "load_client"))

    def idle_connections_of(self, entry):
        return self.idle_tls_connections if entry["kind"] == "tls" else self.idle_connections

    # ---- once ----

    def run_once(self):
        """{server: {figure: value}} of the echo servers, without and with TLS."""
        echo = [entry for kind in ("echo", "tls") for entry in self.entries if entry["kind"] == kind]
        found = {entry["name"]: {} for entry in echo}
        for key, measure, skip in footprint.measures(self, self.options.quick):
            if skip:
                self.skipped[key] = skip
                continue
            for entry in echo:
                if key == "compile" and "target" not in entry:
                    continue
                slow = SLOW_TLS_MEASURES if entry["kind"] == "tls" else SLOW_MEASURES
                if (self.options.quick and key in slow
                        and not entry["name"].startswith(("weir", "reference"))):
                    continue
                self.progress.now(f"{key}  {entry['name']}")
                try:
                    found[entry["name"]][key] = measure(entry)
                except (BenchError, OSError, subprocess.SubprocessError) as error:
                    self.failures[key, entry["name"]] = [str(error)]
            self.progress.done(f"{key} done")
        return found

    # ---- rounds ----

    def participants(self, workload):
        plan = WORKLOADS[workload]
        if all(entry["kind"] != plan.kind for entry in self.entries):
            return []
        return [entry for entry in self.entries if entry["kind"] in (plan.kind, *plan.beside)
                and entry["name"] not in plan.without]

    def base_of(self, workload):
        names = [entry["name"] for entry in self.participants(workload)]
        return next((name for name in BASES if name in names), names[0] if names else None)

    def describe(self, workload):
        return WORKLOADS[workload].text.format(connections=f"{self.connections(workload):,}",
                                               limit=f"{self.limit:,}")

    def connections(self, workload):
        return min(WORKLOADS[workload].most_connections, self.limit - SPARE_DESCRIPTORS)

    def measure(self, entry, workload):
        plan = WORKLOADS[workload]
        client = self.client_of(entry)
        arguments = list(plan.arguments)
        if plan.most_connections:
            arguments += ["--connections", self.connections(workload)]
        seconds = max(self.options.seconds, plan.seconds)
        warmup = 0 if plan.cold else max(seconds / 4, plan.warmup)
        arguments += ["--duration", seconds, "--warmup", warmup]
        if entry["kind"] == "cipher":
            result = run_client([client, "--cipher", "--json", *map(str, arguments)], self.cores[0])
        else:
            command = self.command_of(entry, plan.certificate)
            if plan.buffer and entry.get("buffer"):
                command = command + ["--buffer", str(plan.buffer)]
            arguments += ["--plain"] * (entry["kind"] == "plain")
            with running(command, self.cores[0]) as server:
                result = run_client(client_command(client, server, arguments), self.cores[1])
        if result["cpu_us_per_request"] is None:
            raise NoRequest("no request came back in the measured time")
        return {figure: result[figure] for figure in FIGURES + TLS_FIGURES if figure in result}

    def run_round(self, number, workload, samples):
        base = self.base_of(workload)
        entries = self.participants(workload)
        again = [dict(entry, label=AGAIN) for entry in entries if entry["name"] == base]
        entries = again + entries
        first = number % max(1, len(entries))
        for entry in entries[first:] + entries[:first]:
            name = entry.get("label", entry["name"])
            reasons = self.failures.get((workload, name), [])
            if len(reasons) >= MOST_FAILURES:
                continue
            self.progress.now(f"round {number + 1}  {workload}  {name}")
            try:
                try:
                    result = self.measure(entry, workload)
                except NoRequest:
                    result = self.measure(entry, workload)
                samples.setdefault(name, {})[number] = result
            except BenchError as error:
                self.failures[workload, name] = reasons + [str(error)]

    def run_rounds(self):
        """{workload: {server: {round: figures}}}"""
        samples = {workload: {} for workload in self.options.workloads}
        number = 0
        while number < self.options.rounds:
            started = self.progress.elapsed()
            for workload in self.options.workloads:
                if number < WORKLOADS[workload].most_rounds:
                    self.run_round(number, workload, samples[workload])
            number += 1
            self.progress.done(f"round {number} done")
            now = self.progress.elapsed()
            if now + (now - started) > 60 * self.options.minutes:
                break
        return samples

    def summarize(self, samples):
        """{workload: {server: figures}}: medians over the rounds, ratios pair by pair."""
        summary = {}
        for workload, by_server in samples.items():
            base = by_server.get(self.base_of(workload), {})
            summary[workload] = {}
            for name, rounds in by_server.items():
                if not rounds:
                    continue
                figures = {key: statistics.median(result[key] for result in rounds.values())
                           for key in FIGURES + TLS_FIGURES
                           if all(key in result for result in rounds.values())}
                figures["rounds"] = len(rounds)
                ratios = [result["cpu_us_per_request"] / base[number]["cpu_us_per_request"]
                          for number, result in rounds.items() if number in base]
                if ratios:
                    figures.update(ratio=statistics.median(ratios), ratio_min=min(ratios),
                                   ratio_max=max(ratios))
                summary[workload][name] = figures
        tls.add_sums(samples, summary)
        return summary


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


def output_of(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False,
                              stdin=subprocess.DEVNULL).stdout.strip()
    except OSError:
        return ""


def describe_machine():
    cpu = re.search(r"^model name\s*:\s*(.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    compiler = output_of("g++", "--version").splitlines()
    packages = ("liburing-dev", "libssl-dev", "libasio-dev", "libuv1-dev", "libevent-dev")
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join(["./dev", "bench"] + sys.argv[1:]),
        "commit": output_of("git", "describe", "--always", "--dirty"),
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "compiler": compiler[0] if compiler else "",
        "packages": dict(line.split() for line in output_of(
            "dpkg-query", "-W", "-f", "${Package} ${Version}\n", *packages).splitlines()
            if len(line.split()) == 2),
        "busy_share": busy_share(),
    }


def named_command(text):
    name, separator, command = text.partition("=")
    if not separator or not name or not command:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=COMMAND")
    return name, command


def foreign_command(text):
    return pathlib.Path(shlex.split(text)[0]).name if text.strip() else "", text


def words(text):
    return [word for word in text.split(",") if word]


def workloads(text):
    return [name for word in words(text) for name in GROUPS.get(word, [word])]


def parse_options():
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true",
                        help="one short round, to see that all works: its figures say little")
    parser.add_argument("--minutes", type=float,
                        help="no round is begun that would end later than this (10)")
    parser.add_argument("--rounds", type=int, help="at the most (as many as there is time for)")
    parser.add_argument("--seconds", type=float, help="measured time per run (0.25)")
    parser.add_argument("--servers", type=words, default=[], metavar="NAME,...",
                        help="only those whose names begin so: weir, reference-epoll, asio.*epoll ...")
    parser.add_argument("--workloads", type=workloads, metavar="NAME,...",
                        default=[name for name, w in WORKLOADS.items() if not w.only_when_named],
                        help="only these of: " + ", ".join(WORKLOADS) + "; 'none' for no rounds; " +
                        ", ".join(GROUPS) + " for all of a kind")
    parser.add_argument("--no-footprint", action="store_true",
                        help="leave out idle memory, system calls, instructions, compiling, size")
    parser.add_argument("--idle-connections", type=int, default=10000)
    parser.add_argument("--server", metavar="NAME=COMMAND", type=named_command, action="append",
                        default=[], help="a further echo server (may be repeated)")
    parser.add_argument("--against", metavar="COMMAND", type=foreign_command, action="append",
                        dest="server", help="the same, called by its program's name; in a command '{port}' "
                        "stands for the port that it is to listen on")
    parser.add_argument("--build", metavar="DIRECTORY", type=pathlib.Path, help=argparse.SUPPRESS,
                        default=pathlib.Path("build/release"))
    parser.add_argument("--output", metavar="DIRECTORY", type=pathlib.Path,
                        default=pathlib.Path("build/bench"),
                        help="for results.json and the charts (%(default)s)")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 1000)
    options.seconds = options.seconds or (0.1 if options.quick else 0.25)
    options.minutes = 10 if options.minutes is None else options.minutes
    if options.workloads == ["none"]:
        options.workloads = []
    for workload in options.workloads:
        if workload not in WORKLOADS:
            parser.error(f"no workload is called '{workload}'")
    if options.rounds < 1 or not 0.05 <= options.seconds <= 60 or options.idle_connections < 1:
        parser.error("--rounds has to be 1 or more, --seconds from 0.05 to 60")
    return options


def compare(options, directory):
    bench = Bench(options, directory)
    if not bench.entries:
        raise BenchError("no server is left to measure")
    for name, reason in bench.skipped.items():
        bench.progress.done(f"{name} skipped: {reason}")
    if bench.cores[0] is None:
        bench.progress.done("only one core: server and client share it, and the figures say little")
    options.output.mkdir(parents=True, exist_ok=True)
    record = {"machine": describe_machine(), "seconds": options.seconds}
    if record["machine"]["busy_share"] > 0.1:
        bench.progress.done(f"others use {record['machine']['busy_share']:.0%} of this machine: trust "
                            "ratios more than figures, and A/A says how far")

    with open(options.output / "servers.log", "w", encoding="utf-8") as Server.log:
        record["footprint"] = {} if options.no_footprint else bench.run_once()
        record["samples"] = bench.run_rounds()
    record["idle_connections"] = bench.idle_connections
    record["idle_tls_connections"] = bench.idle_tls_connections
    record["workloads"] = {
        name: {"text": bench.describe(name), "unit": WORKLOADS[name].unit, "base": bench.base_of(name),
               "depth": WORKLOADS[name].depth, "size": WORKLOADS[name].size, "group": WORKLOADS[name].group,
               "without": WORKLOADS[name].without} for name in options.workloads}
    record["summary"] = bench.summarize(record["samples"])
    record["skipped"] = bench.skipped
    record["failures"] = [{"what": what, "server": server, "times": len(reasons), "reason": reasons[-1]}
                          for (what, server), reasons in bench.failures.items()]

    report.print_all(record)
    path = options.output / "results.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"\nall samples: {path}\n{chart.draw_all(record, options.output)}")


def main():
    options = parse_options()
    end_upon_signals()
    with tempfile.TemporaryDirectory() as directory:
        compare(options, pathlib.Path(directory))


if __name__ == "__main__":
    try:
        main()
    except BenchError as error:
        sys.exit(f"compare.py: {error}")
    except KeyboardInterrupt:
        sys.exit("compare.py: interrupted, servers and client are ended")
