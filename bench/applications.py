#!/usr/bin/env python3
"""Compares two examples with the servers that the world uses: http_server with nginx, resp_server with Redis.

Every server has one worker and is pinned to one core, the client that others wrote (wrk, redis-benchmark) to
another. Rounds are interleaved, their order rotates, every measurement has a fresh server process, and a ratio
is taken within a round only. In each round the base, nginx or Redis, runs twice: the ratio of the two (A/A)
shows what is noise.
"""

import argparse
import contextlib
import csv
import http.client
import json
import os
import pathlib
import pwd
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from compare import AGAIN, MOST_FAILURES, Progress, describe_machine, output_of, words
from report import order, print_rows
from servers import BenchError, Server, end_upon_signals, in_child, pick_cores, running

START_SECONDS = 10
FILE = "file.txt"
FILE_BYTES = 1024
HTTP_CONNECTIONS = 64
REDIS_CONNECTIONS = 50  # as redis-benchmark has it
VALUE_BYTES = 64
KEYS = 10000
WARMUP_REQUESTS = 20000

NGINX_CONF = """\
daemon off;
worker_processes 1;
{user}
pid "{directory}/nginx.pid";
error_log stderr;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  sendfile {sendfile};
  tcp_nopush {sendfile};
  keepalive_timeout 30s;
  keepalive_requests 1000000000;
  default_type text/plain;
  client_body_temp_path "{directory}/body";
  proxy_temp_path "{directory}/proxy";
  fastcgi_temp_path "{directory}/fastcgi";
  uwsgi_temp_path "{directory}/uwsgi";
  scgi_temp_path "{directory}/scgi";
  server {{
    listen 127.0.0.1:{port};
    root "{directory}/www";
  }}
}}
"""


# ---- servers --------------------------------------------------------------------------------------

def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running_foreign(command, port, core, program):
    """A server that does not say where it listens: it does as soon as it accepts. Gives its process id."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, executable=program, stdin=subprocess.DEVNULL, stdout=output,
                                   stderr=output, preexec_fn=in_child(core))
        try:
            deadline = time.monotonic() + START_SECONDS
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                if process.poll() is not None or time.monotonic() > deadline:
                    output.seek(0)
                    said = output.read().decode(errors="replace").strip().splitlines() or ["nothing"]
                    raise BenchError(f"{command[0]} does not listen; it says: {said[-1]}")
                time.sleep(0.01)
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(START_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def running_nginx(program, sendfile, directory, core):
    """Without root's rights, and with all that it writes in a directory of its own."""
    port = free_port()
    user = f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""  # else it becomes another
    conf = directory / "nginx.conf"
    text = NGINX_CONF.format(directory=directory, port=port, user=user, sendfile=sendfile)
    conf.write_text(text, encoding="utf-8")
    command = ["nginx", "-p", str(directory), "-c", str(conf), "-e", "stderr"]
    with running_foreign(command, port, core, program) as pid:
        yield pid, port


@contextlib.contextmanager
def running_redis(program, directory, core):
    port = free_port()
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(directory),
               "--save", "", "--appendonly", "no", "--loglevel", "warning"]
    with running_foreign(command, port, core, program) as pid:
        yield pid, port


@contextlib.contextmanager
def running_weir(command, core):
    with running(command, core) as server:
        yield server.pid, server.port


def cpu_seconds(pid):
    """User and system time of a process and of those it has started, by their CPU clocks."""
    clock = (~pid << 3) | 2  # what clock_getcpuclockid(3) gives
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return time.clock_gettime(clock) + sum(cpu_seconds(int(child)) for child in children)


# ---- clients --------------------------------------------------------------------------------------

def output_of_client(command, core):
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, preexec_fn=in_child(core), timeout=120,
                              check=False, text=True)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        raise BenchError(f"{command[0]}: {done.stdout.strip()}")
    return done.stdout


def check_answer(port, content):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", f"/{FILE}")
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise BenchError(f"no answer to a GET: {error!r}") from error
    finally:
        connection.close()
    if response.status != 200 or body != content:
        raise BenchError(f"status {response.status}, or another file than was asked for")


def drive_http(pid, port, seconds, core):
    before = cpu_seconds(pid)
    text = output_of_client(["wrk", "-t", "1", "-c", str(HTTP_CONNECTIONS), "-d", f"{seconds}s",
                             "--latency", f"http://127.0.0.1:{port}/{FILE}"], core)
    cpu = cpu_seconds(pid) - before
    if bad := re.search(r"^ *(Socket errors|Non-2xx).*", text, re.MULTILINE):
        raise BenchError(f"wrk says: {bad[0].strip()}")

    def microseconds(percent):
        value, unit = re.search(rf"^ *{percent}% +([\d.]+)(us|ms|s)$", text, re.MULTILINE).groups()
        return float(value) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]
    requests = int(re.search(r"(\d+) requests in", text)[1])
    return {"cpu_us": 1e6 * cpu / requests,
            "per_second": float(re.search(r"Requests/sec: +([\d.]+)", text)[1]),
            "p50_us": microseconds(50), "p99_us": microseconds(99)}


def drive_redis(pid, port, seconds, core, name, depth):
    def benchmark(test, requests):
        text = output_of_client(
            ["redis-benchmark", "-h", "127.0.0.1", "-p", str(port), "-c", str(REDIS_CONNECTIONS),
             "-P", str(depth), "-t", test, "-n", str(requests), "-r", str(KEYS), "-d",
             str(VALUE_BYTES), "--csv"], core)
        rows = list(csv.DictReader(line for line in text.splitlines() if line.startswith('"')))
        if len(rows) != 1 or rows[0]["test"].lower() != test:
            raise BenchError(f"redis-benchmark says: {text.strip()}")
        return rows[0]
    # Sets the keys, and shows how many requests there is time for.
    requests = max(WARMUP_REQUESTS, int(float(benchmark("set", WARMUP_REQUESTS)["rps"]) * seconds))
    before = cpu_seconds(pid)
    found = benchmark(name, requests)
    cpu = cpu_seconds(pid) - before
    return {"cpu_us": 1e6 * cpu / requests, "per_second": float(found["rps"]),
            "p50_us": 1e3 * float(found["p50_latency_ms"]), "p99_us": 1e3 * float(found["p99_latency_ms"])}


# ---- who against whom -----------------------------------------------------------------------------

class Applications:
    def __init__(self, options, directory):
        self.options = options
        self.cores = pick_cores()
        self.directory = directory
        self.progress = Progress()
        self.content = bytes(ord("a") + i % 26 for i in range(FILE_BYTES))
        (directory / "www").mkdir()
        (directory / "www" / FILE).write_bytes(self.content)
        self.skipped = {}
        self.failures = {}  # (workload, server): reasons
        self.versions = {}
        self.workloads = {}  # name: (text, base, {server: starts it}, drives it)
        self.add_http()
        self.add_redis()
        if options.workloads:
            self.workloads = {name: rest for name, rest in self.workloads.items()
                              if any(name.startswith(wanted) for wanted in options.workloads)}

    def needed(self, workload, **programs):
        """True if all programs are there; else the workload is left out, and why is kept."""
        missing = [name for name, path in programs.items() if not path or not pathlib.Path(path).exists()]
        if missing:
            self.skipped[workload] = f"{', '.join(missing).replace('_', '-')} not found"
        return not missing

    def weir(self, program, *arguments):
        def starter(engine):
            command = [str(program), *arguments, "--engine", engine]
            return lambda: running_weir(command, self.cores[0])
        return {f"weir-{engine}": starter(engine) for engine in ("uring", "epoll")}

    def add_http(self):
        http_server = self.options.build / "examples/http_server"
        unpacked = self.options.packages / "nginx/usr/sbin/nginx"
        nginx = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or str(unpacked)
        if not self.needed("http", http_server=http_server, nginx=nginx, wrk=shutil.which("wrk")):
            return
        version = subprocess.run([nginx, "-v"], capture_output=True, text=True, check=False)
        self.versions["nginx"] = version.stderr.strip().removeprefix("nginx version: nginx/")
        servers = {name: lambda sendfile=sendfile: running_nginx(nginx, sendfile, self.directory, self.cores[0])
                   for name, sendfile in (("nginx", "off"), ("nginx-sendfile", "on"))}
        servers |= self.weir(http_server, "--root", str(self.directory / "www"))

        def drive(pid, port):
            check_answer(port, self.content)
            return drive_http(pid, port, self.options.seconds, self.cores[1])
        self.workloads["http"] = (f"GET of a file of {FILE_BYTES} B, {HTTP_CONNECTIONS} connections kept "
                                  "alive, wrk", "nginx", servers, drive)

    def add_redis(self):
        resp_server = self.options.build / "examples/resp_server"
        # Debian's redis-tools have the server too: one program that does what it is called by.
        redis = shutil.which("redis-server") or shutil.which("redis-check-rdb")
        if not self.needed("redis", resp_server=resp_server, redis_server=redis,
                           redis_benchmark=shutil.which("redis-benchmark")):
            return
        version = subprocess.run(["redis-server", "--version"], executable=redis, capture_output=True,
                                 text=True, check=False)
        self.versions["redis"] = (re.search(r"v=(\S+)", version.stdout) or ["", "?"])[1]
        servers = {"redis": lambda: running_redis(redis, self.directory, self.cores[0])}
        servers |= self.weir(resp_server)

        def driver(name, depth):
            return lambda pid, port: drive_redis(pid, port, self.options.seconds, self.cores[1], name, depth)
        for depth in (1, 16):
            for name in ("get", "set"):
                self.workloads[f"redis-{name}-{depth}"] = (
                    f"{name.upper()} of {VALUE_BYTES} B, {REDIS_CONNECTIONS} connections, {depth} in flight "
                    "on each, redis-benchmark", "redis", servers, driver(name, depth))

    # ---- rounds ----

    def run_round(self, number, workload, samples):
        _, base, servers, drive = self.workloads[workload]
        entries = [(AGAIN, servers[base])] + list(servers.items())
        first = number % len(entries)
        for name, start in entries[first:] + entries[:first]:
            reasons = self.failures.setdefault((workload, name), [])
            if len(reasons) >= MOST_FAILURES:
                continue
            self.progress.now(f"round {number + 1}  {workload}  {name}")
            try:
                with start() as (pid, port):
                    samples.setdefault(name, {})[number] = drive(pid, port)
            except BenchError as error:
                reasons.append(str(error))

    def run_rounds(self):
        """{workload: {server: {round: figures}}}"""
        samples = {workload: {} for workload in self.workloads}
        for number in range(self.options.rounds):
            for workload in self.workloads:
                self.run_round(number, workload, samples[workload])
            self.progress.done(f"round {number + 1} of {self.options.rounds} done")
        return samples

    def summarize(self, samples):
        """{workload: {server: figures}}: medians over the rounds, ratios pair by pair."""
        summary = {}
        for workload, by_server in samples.items():
            base = by_server.get(self.workloads[workload][1], {})
            summary[workload] = {}
            for name, rounds in by_server.items():
                figures = {key: statistics.median(found[key] for found in rounds.values())
                           for key in ("cpu_us", "per_second", "p50_us", "p99_us")}
                for key in ("cpu_us", "per_second"):
                    ratios = [found[key] / base[number][key] for number, found in rounds.items()
                              if number in base]
                    if ratios:
                        figures[f"{key}_ratio"] = [statistics.median(ratios), min(ratios), max(ratios)]
                summary[workload][name] = figures
        return summary


def print_workload(workload, text, base, figures, rounds):
    print(f"\n{workload}: {text}. Median of {rounds} rounds; ratios to {base} in the same round")
    rows = []
    for name in order(figures, base):
        found = figures[name]
        row = [name]
        for key, form in (("cpu_us", "{:.2f}"), ("per_second", "{:.0f}")):
            row.append(form.format(found[key]))
            ratio = None if name == base else found.get(f"{key}_ratio")
            row += ["{:.3f}".format(ratio[0]), "{:.3f} .. {:.3f}".format(*ratio[1:])] if ratio else ["", ""]
        rows.append(row + [f"{found['p50_us']:.0f}", f"{found['p99_us']:.0f}"])
    print_rows(["server", "CPU us/request", "ratio", "min .. max", "requests/s", "ratio", "min .. max",
                "p50 us", "p99 us"], rows)


def parse_options():
    parser = argparse.ArgumentParser(prog="./dev bench applications", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="(%(default)s: some five minutes)")
    parser.add_argument("--seconds", type=int, default=1, help="measured time per run (%(default)s)")
    parser.add_argument("--workloads", type=words, default=[], metavar="NAME,...",
                        help="only those whose names begin so: http, redis, redis-get ...")
    parser.add_argument("--build", metavar="DIRECTORY", type=pathlib.Path, help=argparse.SUPPRESS,
                        default=pathlib.Path("build/release"))
    parser.add_argument("--packages", metavar="DIRECTORY", type=pathlib.Path, help=argparse.SUPPRESS,
                        default=pathlib.Path("build/packages"))
    parser.add_argument("--output", metavar="DIRECTORY", type=pathlib.Path,
                        default=pathlib.Path("build/bench"), help="for applications.json (%(default)s)")
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds < 1:
        parser.error("--rounds and --seconds have to be 1 or more")
    options.packages = options.packages.resolve()
    return options


def main():
    options = parse_options()
    end_upon_signals()
    options.output.mkdir(parents=True, exist_ok=True)
    with (tempfile.TemporaryDirectory() as directory,
          open(options.output / "servers.log", "w", encoding="utf-8") as Server.log):
        bench = Applications(options, pathlib.Path(directory))
        for name, reason in bench.skipped.items():
            bench.progress.done(f"{name} skipped: {reason}")
        if not bench.workloads:
            raise BenchError("no workload is left")
        machine = describe_machine() | {"versions": bench.versions}
        machine["command"] = machine["command"].replace("./dev bench", "./dev bench applications", 1)
        if machine["busy_share"] > 0.1:
            bench.progress.done(f"others use {machine['busy_share']:.0%} of this machine: trust ratios more "
                                "than figures, and A/A says how far")
        samples = bench.run_rounds()
    summary = bench.summarize(samples)
    print(f"\n{machine['date']}, {machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, "
          f"{machine['compiler']}, weir {machine['commit']}, "
          + ", ".join(f"{name} {version}" for name, version in bench.versions.items()))
    print(machine["command"])
    for workload, (text, base, _, _) in bench.workloads.items():
        print_workload(workload, text, base, summary[workload], options.rounds)
    failures = {key: reasons for key, reasons in bench.failures.items() if reasons}
    for (workload, name), reasons in failures.items():
        print(f"failed: {name} at {workload}, {len(reasons)} times: {reasons[-1]}")
    path = options.output / "applications.json"
    path.write_text(json.dumps({"machine": machine, "samples": samples, "summary": summary}, indent=1) + "\n",
                    encoding="utf-8")
    print(f"\nall samples: {path}")


if __name__ == "__main__":
    try:
        main()
    except BenchError as error:
        sys.exit(f"applications.py: {error}")
    except KeyboardInterrupt:
        sys.exit("applications.py: interrupted, servers and client are ended")
