#!/usr/bin/env python3
"""User-space instructions which an echo server spends on a request, counted by callgrind.

Two runs with different numbers of requests; the slope between them is the cost of a request, free of
start, connecting and end. Unlike CPU time it hardly depends on the machine and on what else runs
there: it repeats to about 1 %. What is left is how many requests the server finds per turn.

callgrind runs io_uring servers as they are (valgrind 3.19, DEFER_TASKRUN, buffer rings, multishot):
it passes the system calls through, and needs to know nothing of what the kernel writes to memory.
"""

import argparse
import dataclasses
import pathlib
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile

from servers import BenchError, client_command, end_upon_signals, pick_cores, run_client, running


def count_instructions(command, load_client, arguments, requests, cores):
    """All user-space instructions of a server's life until it has answered so many requests.

    It is asked for the count, not for its end: valgrind looks at signals now and then only, and not at
    all while the server waits in io_uring_enter.
    """
    with tempfile.TemporaryDirectory() as directory:
        profile = pathlib.Path(directory) / "callgrind.out"
        valgrind = ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={profile}"]
        with running(valgrind + list(command), cores[0]) as server:
            run_client(client_command(load_client, server,
                                      arguments + ["--requests", requests, "--duration", 240],
                                      measure_cpu=False), cores[1])
            asked = subprocess.run(["callgrind_control", "--dump", str(server.pid)], timeout=60,
                                   stdin=subprocess.DEVNULL, capture_output=True, check=False)
            server.stop(0)
        # One file per process; a server with threads has all of them in it.
        dump = pathlib.Path(f"{profile}.1")
        if not dump.exists():
            reason = asked.stderr.decode(errors="replace").strip()
            raise BenchError(f"callgrind_control gives no count of {shlex.join(command)}: {reason}")
        summary = re.search(r"^(?:summary|totals):\s*(\d+)", dump.read_text(), re.MULTILINE)
        return int(summary[1])


@dataclasses.dataclass
class Options:
    load_client: str
    connections: int = 64
    size: int = 64
    depth: int = 1
    requests: int = 50000
    repeat: int = 3
    arguments: tuple = ()  # instead of the three above it


def measure(command, options, cores):
    """Slopes of a server's command, as many as options.repeat says."""
    arguments = list(options.arguments) or ["--connections", options.connections, "--size", options.size,
                                            "--depth", options.depth]
    slopes = []
    for _ in range(options.repeat):
        few, many = (count_instructions(command, options.load_client, arguments, requests, cores)
                     for requests in (options.requests, 3 * options.requests))
        slopes.append((many - few) / (2 * options.requests))
    return slopes


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("server", nargs="+", metavar="COMMAND",
                        help="an echo server's command; --port 0 is added if it names no port")
    parser.add_argument("--load-client", metavar="PATH", required=True)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--depth", type=int, default=1)
    parser.add_argument("--requests", type=int, default=50000,
                        help="of the shorter run; the longer has three times as many (%(default)s)")
    parser.add_argument("--repeat", type=int, default=3)
    return parser.parse_args()


def main():
    options = parse_options()
    end_upon_signals()
    if not shutil.which("valgrind"):
        raise BenchError("valgrind is not installed")
    cores = pick_cores()
    print(f"User-space instructions per request at {options.connections} x {options.size} B, "
          f"depth {options.depth}: median of {options.repeat} slopes")
    for command in options.server:
        slopes = measure(shlex.split(command), options, cores)
        print(f"{statistics.median(slopes):9.1f}  ({min(slopes):.1f} .. {max(slopes):.1f})  {command}",
              flush=True)


if __name__ == "__main__":
    try:
        main()
    except BenchError as error:
        sys.exit(f"instructions.py: {error}")
    except KeyboardInterrupt:
        sys.exit("instructions.py: interrupted, the server is ended")
