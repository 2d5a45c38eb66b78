"""What needs no rounds: idle memory, system calls, instructions, compiling, size of the program."""

import contextlib
import functools
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import tempfile
import time

import instructions
from servers import BenchError, client_command, in_child, run_client, running

FIRST_TLS_CONNECTIONS = 100


# ---- memory per idle connection -------------------------------------------------------------------

@contextlib.contextmanager
def holding(connections, entry, setup, server, echo, more=()):
    """So many connections that stand and do nothing, new ones or after one echo on each."""
    arguments = ["--idle", "--connections", connections, "--duration", 60, *more]
    client = subprocess.Popen(
        client_command(setup.client_of(entry), server, arguments + ["--idle-echo"] * echo),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=in_child(setup.cores[1]))
    try:
        if client.stdout.readline().split() != [b"idle", b"%d" % connections]:
            raise BenchError(client.communicate(timeout=30)[1].decode().strip())
        time.sleep(0.2)  # the last ones are accepted
        yield
        client.communicate(timeout=30)  # closes its stdin, which ends it
    finally:
        client.kill()
        client.wait()


def idle_bytes(entry, setup, echo):
    """Bytes of resident memory per connection: new ones, or after one echo on each."""
    connections = setup.idle_connections_of(entry)
    # What the first handshakes take is the process's.
    first = FIRST_TLS_CONNECTIONS if entry["kind"] == "tls" else 0
    with running(setup.command_of(entry), setup.cores[0]) as server, contextlib.ExitStack() as held:
        if first:
            held.enter_context(holding(first, entry, setup, server, echo))
        before = server.resident_kib()
        with holding(connections, entry, setup, server, echo):
            after = server.resident_kib()
    return (after - before) * 1024 / connections


# ---- system calls ---------------------------------------------------------------------------------

def pick_syscall_counter():
    """perf does not slow the server down; strace does, and so lets it find more work per turn."""
    if shutil.which("perf"):
        trial = subprocess.run(["perf", "stat", "-x,", "-e", "raw_syscalls:sys_enter", "true"],
                               stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if trial.returncode == 0 and re.search(rb"^[1-9]\d*,", trial.stderr, re.MULTILINE):
            return "perf"
    if shutil.which("strace"):
        trial = subprocess.run(["strace", "-c", "-U", "calls,name", "true"],
                               stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if trial.returncode == 0:
            return "strace"
    return None


def syscalls_per_request(entry, setup, counter, requests):
    arguments = ["--connections", 64, "--requests", requests]
    with running(setup.command_of(entry), setup.cores[0]) as server, tempfile.NamedTemporaryFile() as output:
        client = client_command(setup.client_of(entry), server, arguments)
        if counter == "perf":
            run_client(["perf", "stat", "-x,", "-e", "raw_syscalls:sys_enter", "-p",
                        str(server.pid), "-o", output.name, "--"] + client, setup.cores[1])
            count = int(re.search(r"^(\d+),", output.read().decode(), re.MULTILINE)[1])
        else:
            count = count_with_strace(server, client, output, setup)
    return count / requests


def count_with_strace(server, client, output, setup):
    strace = subprocess.Popen(
        ["strace", "-c", "-U", "calls,name", "-f", "-p", str(server.pid), "-o", output.name],
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=in_child(None))
    try:
        if b"attached" not in strace.stderr.readline():
            raise BenchError("strace cannot attach")
        run_client(client, setup.cores[1])
    finally:
        strace.send_signal(signal.SIGINT)
        strace.communicate(timeout=30)
    return int(re.search(r"^\s*(\d+)\s+total", output.read().decode(), re.MULTILINE)[1])


# ---- user-space instructions ----------------------------------------------------------------------

def instructions_per_request(entry, setup, requests, repeat):
    options = instructions.Options(load_client=setup.client_of(entry), requests=requests, repeat=repeat)
    return statistics.median(instructions.measure(setup.command_of(entry), options, setup.cores))


# ---- compiling ------------------------------------------------------------------------------------

@functools.cache
def compile_cost(target, build):
    """CPU seconds and MiB at the peak which the compiler takes for the target's own source."""
    commands = json.loads((build / "compile_commands.json").read_text())
    entry = next((entry for entry in commands if f"/{target}.dir/" in entry["command"]), None)
    if entry is None:
        raise BenchError(f"compile_commands.json does not know {target}")
    command = shlex.split(entry["command"])
    if "ccache" in pathlib.Path(command[0]).name:
        del command[0]
    with tempfile.TemporaryDirectory() as directory:
        command[command.index("-o") + 1] = f"{directory}/object.o"
        compiler = subprocess.Popen(command, cwd=entry["directory"], stdin=subprocess.DEVNULL)
        _, status, usage = os.wait4(compiler.pid, 0)
        compiler.returncode = os.waitstatus_to_exitcode(status)
    if compiler.returncode != 0:
        raise BenchError(f"{target} does not compile")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def stripped_kib(program):
    with tempfile.NamedTemporaryFile() as output:
        subprocess.run(["strip", "-o", output.name, program], check=True)
        return os.stat(output.name).st_size / 1024


# ---- all of them ----------------------------------------------------------------------------------

def measures(setup, quick):
    """[(key, function of a servers.json entry, reason to skip it or None)]"""
    counter = pick_syscall_counter()
    no_idle = None if setup.idle_connections else "the limit of open files is too low (ulimit -Hn)"
    no_counter = None if counter else "neither `perf stat` nor strace works here"
    no_valgrind = None if shutil.which("valgrind") else "valgrind is not installed"
    requests = 20000 if quick else 100000
    slope = (3000, 1) if quick else (8000, 3)
    return [
        ("idle_new_bytes", lambda e: idle_bytes(e, setup, False), no_idle),
        ("idle_echoed_bytes", lambda e: idle_bytes(e, setup, True), no_idle),
        ("syscalls_per_request",
         lambda e: syscalls_per_request(e, setup, counter, requests), no_counter),
        ("instructions_per_request",
         lambda e: instructions_per_request(e, setup, *slope), no_valgrind),
        ("compile", lambda e: compile_cost(e["target"], setup.build), None),
        ("stripped_kib", lambda e: stripped_kib(e["command"][0]), None),
    ]
