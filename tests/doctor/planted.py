"""What the tests of weir-top, weir-doctor, weir-gdb and of the inspector's page share: the program
with the planted faults, and what is to be seen of it."""

import contextlib
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

PATIENCE = 120  # seconds, for what nothing but a defect delays
SOURCE = "tests/programs/planted.cpp"


def expect(condition, what, output=""):
    if not condition:
        sys.exit(f"FAILED: {what}\n{output}")


def eventually(what, look):
    """Looks until it is true; gives what it gave then."""
    end = time.monotonic() + PATIENCE
    while True:
        seen = look()
        if seen:
            return seen
        expect(time.monotonic() < end, f"not seen within {PATIENCE} s: {what}")
        time.sleep(0.05)


def run(*command, **options):
    """Exit status and what was written to both streams."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, check=False,
                          stderr=subprocess.STDOUT, text=True, timeout=PATIENCE, **options)
    return done.returncode, done.stdout


def line_of(text):
    """Of the planted program's source."""
    source = pathlib.Path(__file__).parent.parent / "programs" / "planted.cpp"
    for number, line in enumerate(source.read_text(encoding="utf-8").splitlines(), 1):
        if text in line:
            return number
    sys.exit(f"FAILED: planted.cpp has no {text}")


def place(function, text):
    """As a place is written: "function at file:line"."""
    return f"{function} at {SOURCE}:{line_of(text)}"


# What hangs, and for what.
DEADLOCK = place("wait_for_both", "co_await second.lock()") + ": Mutex::lock"
STARVED = place("next_job", "co_await jobs.receive()") + ": Channel::receive"
SLOW = re.compile(r"tell_for_ever.* at " + re.escape(SOURCE) + f":{line_of('connection.send(')}: send")


@contextlib.contextmanager
def planted(programs, *arguments, inspect=None):
    """The program, once all that it plants waits."""
    environment = {name: value for name, value in os.environ.items() if name != "WEIR_INSPECT"}
    if inspect is not None:
        environment["WEIR_INSPECT"] = inspect
    with subprocess.Popen([pathlib.Path(programs) / "planted", *arguments], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            expect(process.stdout.readline() == "planted\n", "the program begins")
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def directory():
    """One whose name is short enough for a socket's path."""
    with tempfile.TemporaryDirectory(prefix="weir-") as name:
        yield pathlib.Path(name)
