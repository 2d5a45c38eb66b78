#!/usr/bin/env python3
"""Compares the adapters of examples/adapters with their libraries' own event loops: hiredis, libpq, libcurl, c-ares.

One program for each library does the same work in either loop against a server on this machine, pinned to one
core, the server to another. Rounds are interleaved, their order rotates, every measurement has a fresh process,
and a ratio is taken within a round only. In each round the library's own loop runs twice: the ratio of the two
(A/A) shows what is noise.
"""

import argparse
import contextlib
import json
import os
import pathlib
import pwd
import shutil
import statistics
import subprocess
import sys
import tempfile

from applications import FILE, FILE_BYTES, free_port, running_foreign, running_nginx, running_redis
from compare import AGAIN, MOST_FAILURES, Progress, describe_machine, words
from report import order, print_rows
from servers import BenchError, Server, end_upon_signals, in_child, pick_cores, running

VALUE_BYTES = 64
OWN = "own"
FIGURES = ("per_second", "cpu_us")
# A network of its own, where a name server may have port 53 and /etc/resolv.conf names it. Both families have
# an address there, so that getaddrinfo(3) with AI_ADDRCONFIG asks for both.
NAMES_SCRIPT = """\
set -e
ip link set lo up
ip address add 192.0.2.1/32 dev lo
ip -6 address add 2001:db8::1/128 dev lo
mount --bind "$1/resolv.conf" /etc/resolv.conf
mount --bind "$1/nsswitch.conf" /etc/nsswitch.conf
shift
exec setpriv --pdeathsig KILL -- "$@"
"""


# ---- servers: each gives what the programs take as --server, and what stands before them -----------

@contextlib.contextmanager
def with_redis(found, directory, core):
    with running_redis(found["redis-server"], directory, core) as (_, port):
        value = "v" * VALUE_BYTES
        subprocess.run(["redis-cli", "-p", str(port), "set", "key", value], stdout=subprocess.DEVNULL, check=True)
        yield f"127.0.0.1:{port}", []


@contextlib.contextmanager
def with_nginx(found, directory, core):
    (directory / "www").mkdir(exist_ok=True)
    (directory / "www" / FILE).write_bytes(b"p" * FILE_BYTES)
    with running_nginx(found["nginx"], "off", directory, core) as (_, port):
        yield f"http://127.0.0.1:{port}/{FILE}", []


@contextlib.contextmanager
def with_postgres(found, directory, core):
    """PostgreSQL refuses root: then it is the user postgres'."""
    home = directory / "postgres"
    home.mkdir(exist_ok=True)
    become = []
    if os.geteuid() == 0:
        directory.chmod(0o755)
        entry = pwd.getpwnam("postgres")
        os.chown(home, entry.pw_uid, entry.pw_gid)
        become = ["setpriv", "--pdeathsig", "INT", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}",
                  "--clear-groups", "--"]
    data = home / "data"
    if not data.exists():
        made = subprocess.run([*become, found["initdb"], "-D", str(data), "-A", "trust", "-U", "weir", "--no-sync",
                               "--locale=C", "-E", "UTF8"], capture_output=True, text=True, check=False)
        if made.returncode != 0:
            raise BenchError(f"initdb: {made.stderr.strip()}")
    port = free_port()
    command = [*become, found["postgres"], "-D", str(data), "-k", str(home), "-p", str(port), "-c",
               "listen_addresses=127.0.0.1", "-c", "fsync=off"]
    with running_foreign(command, port, core, command[0]):
        yield f"host={home} port={port} dbname=postgres user=weir", []


@contextlib.contextmanager
def with_names(found, directory, core):
    (directory / "resolv.conf").write_text("nameserver 127.0.0.1\n", encoding="ascii")
    (directory / "nsswitch.conf").write_text("hosts: dns\n", encoding="ascii")
    command = ["unshare", "--map-root-user", "--mount", "--net", "sh", "-c", NAMES_SCRIPT, "sh", str(directory),
               found["answerer"], "--port", "53"]
    with running(command, core) as server:
        yield "127.0.0.1:53", ["nsenter", "--target", str(server.pid), "--user", "--mount", "--net",
                               "--preserve-credentials", "--"]


# ---- who against whom -----------------------------------------------------------------------------

ENGINES = {"weir-uring": ("weir", "uring"), "weir-epoll": ("weir", "epoll")}
PIPELINES = {name: (f"{loop}-pipeline", engine) for name, (loop, engine) in ENGINES.items()}
THREADS = {"threads": ("threads", "uring")}

# name: text, program, what it needs, server, in flight, {name: (--loop, engine)} with the base first
WORKLOADS = {
    "redis-1": ("hiredis, beside libevent: GET of 64 B, 1 in flight on one connection", "redis_loops",
                ("redis-server", "redis-cli"), with_redis, 1, {OWN: ("own", "")} | ENGINES),
    "redis-64": ("hiredis, beside libevent: GET of 64 B, 64 in flight on one connection", "redis_loops",
                 ("redis-server", "redis-cli"), with_redis, 64, {OWN: ("own", "")} | ENGINES),
    "postgres": ("libpq, beside poll(2): SELECT $1::int, 1 in flight on each of 4 connections", "postgres_loops",
                 ("postgres", "initdb", "setpriv"), with_postgres, 4, {OWN: ("own", "")} | ENGINES),
    "postgres-pipeline": ("libpq's pipeline mode, beside poll(2): SELECT $1::int, 64 in flight on one connection",
                          "postgres_loops", ("postgres", "initdb", "setpriv"), with_postgres, 64,
                          {OWN: ("own-pipeline", "")} | PIPELINES),
    "curl": (f"libcurl, beside curl_multi_poll: GET of a file of {FILE_BYTES} B, 16 transfers at a time", "curl_loops",
             ("nginx",), with_nginx, 16, {OWN: ("own", "")} | ENGINES),
    "cares-1": ("c-ares, beside select(2), and getaddrinfo in threads: a name, 1 at a time", "cares_loops",
                ("answerer", "unshare", "nsenter", "ip"), with_names, 1, {OWN: ("own", "")} | ENGINES | THREADS),
    "cares-64": ("c-ares, beside select(2), and getaddrinfo in threads: names, 64 at a time", "cares_loops",
                 ("answerer", "unshare", "nsenter", "ip"), with_names, 64, {OWN: ("own", "")} | ENGINES | THREADS),
}


def program_path(name, build):
    """A server's program or one of this tree's; None if it is not there."""
    own = build / "bench" / name
    if own.exists():
        return str(own)
    versions = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name)
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", *map(str, reversed(versions))])
    return shutil.which(name, path=path)


class Loops:
    def __init__(self, options):
        self.options = options
        self.build = options.build.resolve()
        self.cores = pick_cores()
        self.progress = Progress()
        self.failures = {}  # (workload, loop): reasons
        self.skipped = {}

    def find(self, workload):
        """{program: path} of all that a workload needs; None, with the reason kept, if one is missing."""
        _, program, needs, *_ = WORKLOADS[workload]
        found = {name: program_path(name, self.build) for name in (program, *needs)}
        missing = [name for name, path in found.items() if path is None]
        if missing:
            self.skipped[workload] = f"{', '.join(missing)} not found"
        elif workload.startswith("postgres") and os.geteuid() == 0 and not user_exists("postgres"):
            self.skipped[workload] = "there is no user postgres, and PostgreSQL refuses root"
        else:
            return found
        return None

    def measure(self, prefix, program, server, in_flight, loop, engine):
        command = [*prefix, program, "--loop", loop, "--server", server, "--in-flight", str(in_flight),
                   "--seconds", str(self.options.seconds)]
        environment = os.environ | ({"WEIR_ENGINE": engine} if engine else {})
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  env=environment, preexec_fn=in_child(self.cores[0]), check=False,
                                  timeout=30 + self.options.seconds)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BenchError(str(error)) from error
        if done.returncode != 0:
            raise BenchError(done.stderr.strip() or f"exit status {done.returncode}")
        found = json.loads(done.stdout)
        if found["requests"] == 0:
            raise BenchError("not one request")
        return {"per_second": found["requests"] / found["seconds"],
                "cpu_us": 1e6 * found["cpu_seconds"] / found["requests"]}

    def run(self, workload):
        """{loop: {round: figures}}"""
        found = self.find(workload)
        samples = {}
        if found is None:
            return samples
        _, program, _, start, in_flight, loops = WORKLOADS[workload]
        entries = [(AGAIN, loops[OWN]), *loops.items()]
        with (tempfile.TemporaryDirectory() as directory,
              start(found, pathlib.Path(directory), self.cores[1]) as (server, prefix)):
            for number in range(self.options.rounds):
                first = number % len(entries)
                for name, (loop, engine) in entries[first:] + entries[:first]:
                    reasons = self.failures.setdefault((workload, name), [])
                    if len(reasons) >= MOST_FAILURES:
                        continue
                    self.progress.now(f"{workload}  round {number + 1}  {name}")
                    try:
                        samples.setdefault(name, {})[number] = self.measure(
                            prefix, found[program], server, in_flight, loop, engine)
                    except BenchError as error:
                        reasons.append(str(error))
        self.progress.done(f"{workload} done")
        return samples


def user_exists(name):
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(name) is not None
    return False


def summarize(by_loop):
    """{loop: figures}: medians over the rounds; the ratios to the library's own loop, pair by pair."""
    base = by_loop.get(OWN, {})
    summary = {}
    for name, rounds in by_loop.items():
        summary[name] = {}
        for key in FIGURES:
            ratios = [found[key] / base[number][key] for number, found in rounds.items() if number in base]
            summary[name][key] = statistics.median(found[key] for found in rounds.values())
            if ratios:
                summary[name][f"{key}_ratio"] = [statistics.median(ratios), min(ratios), max(ratios)]
    return summary


def print_workload(workload, summary, rounds):
    print(f"\n{workload}: {WORKLOADS[workload][0]}. Median of {rounds} rounds; ratios to the library's own loop in "
          "the same round")
    rows = []
    for name in order(summary, OWN):
        row = [name]
        for key, form in (("per_second", "{:.0f}"), ("cpu_us", "{:.2f}")):
            ratio = None if name == OWN else summary[name].get(f"{key}_ratio")
            row += [form.format(summary[name][key])]
            row += ["{:.3f}".format(ratio[0]), "{:.3f} .. {:.3f}".format(*ratio[1:])] if ratio else ["", ""]
        rows.append(row)
    print_rows(["loop", "requests/s", "ratio", "min .. max", "CPU us/request", "ratio", "min .. max"], rows)


def parse_options():
    parser = argparse.ArgumentParser(prog="./dev bench adapters", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=9, help="(%(default)s: some five minutes)")
    parser.add_argument("--seconds", type=float, default=1, help="measured time per run (%(default)s)")
    parser.add_argument("--workloads", type=words, default=[], metavar="NAME,...",
                        help="only those whose names begin so, of " + ", ".join(WORKLOADS))
    parser.add_argument("--build", metavar="DIRECTORY", type=pathlib.Path, help=argparse.SUPPRESS,
                        default=pathlib.Path("build/release"))
    parser.add_argument("--output", metavar="DIRECTORY", type=pathlib.Path,
                        default=pathlib.Path("build/bench"), help="for adapters.json (%(default)s)")
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("--rounds has to be 1 or more, --seconds above 0")
    return options


def main():
    options = parse_options()
    end_upon_signals()
    options.output.mkdir(parents=True, exist_ok=True)
    loops = Loops(options)
    machine = describe_machine()
    machine["command"] = machine["command"].replace("./dev bench", "./dev bench adapters", 1)
    wanted = [name for name in WORKLOADS
              if not options.workloads or any(name.startswith(prefix) for prefix in options.workloads)]
    record = {"machine": machine, "samples": {}, "summary": {}, "skipped": loops.skipped}
    with open(options.output / "servers.log", "w", encoding="utf-8") as Server.log:
        for workload in wanted:
            try:
                record["samples"][workload] = loops.run(workload)
            except (BenchError, OSError, subprocess.CalledProcessError) as error:
                loops.skipped[workload] = str(error)
    machine["load"] = os.getloadavg()
    print(f"\n{machine['date']}, {machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, "
          f"{machine['compiler']}, weir {machine['commit']}; load {machine['load'][0]:.1f}, others used "
          f"{machine['busy_share']:.0%} of the machine at the start")
    print(machine["command"])
    for workload, samples in record["samples"].items():
        if samples:
            record["summary"][workload] = summarize(samples)
            print_workload(workload, record["summary"][workload], options.rounds)
    for workload, reason in loops.skipped.items():
        print(f"skipped: {workload}: {reason}")
    for (workload, name), reasons in loops.failures.items():
        if reasons:
            print(f"failed: {name} at {workload}, {len(reasons)} times: {reasons[-1]}")
    path = options.output / "adapters.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"\nall samples: {path}")


if __name__ == "__main__":
    try:
        main()
    except BenchError as error:
        sys.exit(f"adapters.py: {error}")
    except KeyboardInterrupt:
        sys.exit("adapters.py: interrupted, servers and programs are ended")
