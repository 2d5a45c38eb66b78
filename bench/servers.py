"""Starting echo servers, driving them with the load client, and ending them whatever happens."""

import contextlib
import ctypes
import json
import os
import re
import resource
import select
import shlex
import signal
import socket
import subprocess
import time

PR_SET_PDEATHSIG = 1
START_SECONDS = 30  # under valgrind a start takes its time


class BenchError(Exception):
    """A measurement cannot be made; the text is for the user."""


def pick_cores():
    """A core for the server and another for the client, or (None, None): then nothing is pinned."""
    cores = sorted(os.sched_getaffinity(0))
    return (cores[0], cores[1]) if len(cores) > 1 else (None, None)


def in_child(core):
    """Runs in the child before exec: pinned, and killed by the kernel should this script die."""
    def prepare():
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if core is not None:
            os.sched_setaffinity(0, {core})
    return prepare


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


PORT = "{port}"  # in a command, in place of which a free one stands


class Server:
    """A running echo server: any program that says `listening on ADDRESS:PORT` first, or whose command takes
    the port that it is to listen on."""

    log = None  # where all servers' stderr goes; None: to that of this script

    def __init__(self, command, core=None):
        given = free_port() if any(PORT in word for word in command) else None
        self.command = [word.replace(PORT, str(given)) for word in command]
        if given is None and "--port" not in self.command:
            self.command += ["--port", "0"]
        try:
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if given is None else self.log or subprocess.DEVNULL,
                stderr=self.log, preexec_fn=in_child(core))
        except OSError as error:
            raise BenchError(f"cannot start {self.command[0]}: {error.strerror}") from error
        self.pid = self._process.pid
        try:
            self.address, self.port = self._read_address() if given is None else self._await_port(given)
        except BaseException:
            self.stop()
            raise

    def read_line(self):
        output = b""
        deadline = time.monotonic() + START_SECONDS
        descriptor = self._process.stdout.fileno()
        while b"\n" not in output:
            ready, _, _ = select.select([descriptor], [], [], max(0, deadline - time.monotonic()))
            piece = os.read(descriptor, 4096) if ready else b""
            if not piece:
                reason = "has ended" if ready else f"says nothing for {START_SECONDS} s"
                raise BenchError(f"{shlex.join(self.command)}: it {reason}")
            output += piece
        return output.decode(errors="replace").splitlines()[0]

    def _await_port(self, port):
        deadline = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return "127.0.0.1", port
            time.sleep(0.01)
        raise BenchError(f"{shlex.join(self.command)}: nobody listens on 127.0.0.1:{port}")

    def _read_address(self):
        line = self.read_line()
        match = re.match(r"listening on \[?(.*?)\]?:(\d+)\b", line)
        if not match:
            raise BenchError(f"{self.command[0]}: '{line}' instead of 'listening on ADDRESS:PORT'")
        return match[1], int(match[2])

    def resident_kib(self):
        with open(f"/proc/{self.pid}/status", encoding="ascii", errors="replace") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))

    def stop(self, seconds=10):
        """Asks it to end, then makes it. Returns the exit status."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
        if self._process.stdout is not None:
            self._process.stdout.close()
        return self._process.wait()


@contextlib.contextmanager
def running(command, core=None):
    server = Server(command, core)
    try:
        yield server
    finally:
        server.stop()


def client_command(load_client, server, arguments, measure_cpu=True):
    command = [load_client, "--address", server.address, "--port", str(server.port), "--json"]
    if measure_cpu:
        command += ["--pid", str(server.pid)]
    return command + [str(argument) for argument in arguments]


def run_client(command, core=None, seconds=300):
    """Runs the load client to its end; returns what it found. It bounds its own time, mostly."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, preexec_fn=in_child(core), timeout=seconds,
                              check=False)
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"the load client did not end within {seconds} s") from error
    except OSError as error:
        raise BenchError(f"cannot start {command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip() or f"exit status {done.returncode}"
        raise BenchError(reason)
    return json.loads(done.stdout)


def raise_descriptor_limit(needed):
    """For this process and its children. False if the hard limit forbids it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= needed:
        return True
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, max(hard, needed)))
        return True
    return False


def end_upon_signals():
    """SIGTERM and SIGHUP end the script as Ctrl-C does: through the `finally` blocks."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
