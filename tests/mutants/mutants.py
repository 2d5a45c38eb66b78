#!/usr/bin/env python3
"""Breaks a copy of the tree in one way after the other, and sees which test tells.

Usage: mutants.py [--list | --standing] [NAME...]     all mutants of tests/mutants, or those named

--list shows them as a table; --standing only sees whether what each of them breaks still stands in the tree.

The mutants stand in tests/mutants/*.txt, each like this:

    == send_drop_strands
    A dropped send that waits strands those behind it.
    In: net
    Tests: net/connection_send
    - if (next != nullptr) wake(next);
    + (void)next;

`In` names the files, or directories, in one of which the lines with a minus stand, once; those with a plus
come in their place. White space does not count, nor does where the lines stand: they move with the code.
`Tests` are the files of tests that are to tell, and `Programs`, where there is such a line, what they start. Those of
tests/schedules are a program of their own, which looks at what no other may meet: a mutant names none but them then.

A mutant is killed when one of those files fails, crashes or does not end. It is an error when one survives,
and as well when what it breaks is not there any more or the broken tree does not build: it tests nothing then.
The copy and its build stay in build/mutants, so that the next run builds only what is new. Each mutant builds
what it changes and the tests that it names, and all is as it was before the next one: also the objects, with
their times.
"""

import contextlib
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

SOURCE = pathlib.Path(__file__).resolve().parents[2]
WORK = SOURCE / "build" / "mutants"
TREE, BUILD, CLEAN = WORK / "tree", WORK / "build", WORK / "clean"
PROGRAM = BUILD / "tests" / "mutant_tests"
SCHEDULES = BUILD / "tests" / "schedules" / "weir_schedules"
SECONDS_FOR_A_CASE = 30
SECONDS = 150  # for a file


def run(*command, **options):
    return subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace", check=False, **options)


def must(*command, **options):
    done = run(*command, **options)
    if done.returncode != 0:
        sys.exit(f"FAILED: {' '.join(map(str, command))}\n{done.stdout[-5000:]}")
    return done.stdout


class Mutant:
    def __init__(self, file, name, text):
        self.name, self.area = name, file.stem
        lines = text.strip("\n").splitlines()
        self.what = " ".join(line for line in lines if line and not re.match(r"(In|Tests|Programs):|[-+]", line))
        fields = dict(re.findall(r"^(In|Tests|Programs): *(.+)$", text, re.MULTILINE))
        self.old = "\n".join(line[1:] for line in lines if line.startswith("-"))
        self.new = "\n".join(line[1:] for line in lines if line.startswith("+"))
        self.places = fields.get("In", "").split()
        self.tests = fields.get("Tests", "").split()
        self.programs = fields.get("Programs", "").split()
        if not (self.what and self.places and self.tests and self.old.strip()):
            sys.exit(f"FAILED: {file.name}: {name} says not all of what, In, Tests and what to replace")
        for test in self.tests:
            path = SOURCE / "tests" / f"{test}.cpp"
            if not path.is_file():
                sys.exit(f"FAILED: {file.name}: {name} names tests/{test}.cpp, which is not there")
            # What the test starts itself need not be named; what its helpers start, must be.
            self.programs += re.findall(r'WEIR_TEST_PROGRAMS_DIR "/(\w+)"', path.read_text(encoding="utf-8"))
        self.programs = sorted(set(self.programs))
        self.in_schedules = [test.startswith("schedules/") for test in self.tests]
        if any(self.in_schedules) != all(self.in_schedules):
            sys.exit(f"FAILED: {file.name}: {name} names tests of two programs")
        self.in_schedules = all(self.in_schedules)

    def objects(self):
        return [f"tests/CMakeFiles/weir_tests.dir/{test}.cpp.o" for test in self.tests]

    def targets(self):
        if self.in_schedules:
            return [SCHEDULES.name]
        return self.objects() + [f"weir_test_program_{name}" for name in self.programs]

    def find(self, tree):
        """(file, its text when broken), or (None, why not)."""
        tokens = re.findall(r"\w+|[^\w\s]", self.old)
        pattern = re.compile(r"\s*".join(map(re.escape, tokens)))
        found = []
        for place in self.places:
            path = tree / place
            files = sorted([*path.rglob("*.cpp"), *path.rglob("*.h")]) if path.is_dir() else [path]
            for file in (file for file in files if file.is_file()):
                text = file.read_text(encoding="utf-8")
                found += [(file, text, match) for match in pattern.finditer(text)]
        if len(found) != 1:
            return None, f"what it breaks stands there {len(found)} times"
        file, text, match = found[0]
        return file, text[:match.start()] + self.new.strip() + text[match.end():]


def read_mutants(names):
    mutants = []
    for file in sorted((SOURCE / "tests" / "mutants").glob("*.txt")):
        parts = re.split(r"^== *(\S+)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
        mutants += [Mutant(file, name, text) for name, text in zip(parts[1::2], parts[2::2])]
    known = [mutant.name for mutant in mutants]
    for name in names:
        if name not in known:
            sys.exit(f"FAILED: there is no mutant {name}")
    if len(set(known)) != len(known):
        sys.exit("FAILED: two mutants have the same name")
    return [mutant for mutant in mutants if not names or mutant.name in names]


def copy_tree():
    """What git knows or would take; a file that is the same keeps its time, and is not built anew."""
    listed = run("git", "ls-files", "-co", "--exclude-standard", cwd=SOURCE)
    if listed.returncode != 0:
        sys.exit("FAILED: this is no checkout of git")
    names = {name for name in listed.stdout.splitlines() if (SOURCE / name).is_file()}
    for name in names:
        source, target = SOURCE / name, TREE / name
        if target.is_file() and target.read_bytes() == source.read_bytes():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        shutil.copymode(source, target)
    for target in TREE.rglob("*"):
        if target.is_file() and str(target.relative_to(TREE)) not in names:
            target.unlink()


def build(targets):
    return run("ninja", "-C", BUILD, *targets)


def linker_of(support):
    """What links the tests, given their objects, and the libraries of ours that it takes."""
    command = must("ninja", "-C", BUILD, "-t", "commands", "-s", "tests/weir_tests").strip().splitlines()[-1]
    words = shlex.split(command.split("&&")[1])
    words = [word for word in words if not word.startswith("tests/CMakeFiles/weir_tests.dir/")]
    words[words.index("-o") + 1] = str(PROGRAM)
    libraries = [word for word in words if re.fullmatch(r"lib\S+\.a", word)]
    at = words.index(libraries[0])
    return lambda objects: run(*words[:at], *support, *objects, *words[at:], cwd=BUILD), libraries


def products():
    return [path for path in BUILD.rglob("*")
            if path != PROGRAM and not path.is_symlink() and path.is_file()
            and (path.suffix in (".o", ".a") or os.access(path, os.X_OK))]


def keep_products():
    shutil.rmtree(CLEAN, ignore_errors=True)
    for path in products():
        target = CLEAN / path.relative_to(BUILD)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)


def restore_products():
    for path in products():
        kept = CLEAN / path.relative_to(BUILD)
        if not kept.exists():
            path.unlink()
        elif kept.stat().st_mtime_ns != path.stat().st_mtime_ns:
            path.unlink()  # a program may still run
            shutil.copy2(kept, path)


def run_tests(files, seconds_for_a_case=SECONDS_FOR_A_CASE):
    """The name of the first test case that fails, or None."""
    wanted = ",".join(f"*tests/{name}.cpp" for name in files)
    program = SCHEDULES if files[0].startswith("schedules/") else PROGRAM
    command = [program, f"--source-file={wanted}", "--abort-after=1"]
    environment = {**os.environ, "WEIR_CASE_SECONDS": str(seconds_for_a_case)}
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        program = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment,
                                   start_new_session=True)
        try:
            status = program.wait(SECONDS)
        except subprocess.TimeoutExpired:
            status = None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)  # what a broken test leaves behind
        program.wait()
        output.seek(0)
        text = output.read()
    if status is None:
        return "(no end)"
    if status == 0:
        return None if "test cases: 0 |" not in text else "(no test case there)"
    case = None
    for line in text.splitlines():
        if found := re.search(r'given up in test case: (.*)|test case "(.*)" leaves behind', line):
            return found[1] or found[2]
        if found := re.match(r"TEST CASE:  (.*)", line):
            case = found[1]
        elif case and "ERROR:" in line:
            return case
    return f"(exit status {status})"


def verdict(mutant, link, base):
    """Whether all is well, and a text. `base`: what is built for all; of a function in a header the linker takes
    whichever it meets first, which must be the broken one."""
    file, text = mutant.find(TREE)
    if file is None:
        return False, text
    before, stat = file.read_bytes(), file.stat()
    file.write_text(text, encoding="utf-8")
    try:
        built = build(mutant.targets() if mutant.in_schedules else base + mutant.targets())
        if built.returncode == 0 and not mutant.in_schedules:
            built = link(mutant.objects())
        if built.returncode != 0:
            return False, "does not build:\n" + built.stdout[-2000:]
        killer = run_tests(mutant.tests)
    finally:
        file.write_bytes(before)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        restore_products()
    return (False, "SURVIVED") if killer is None else (True, killer)


def main(arguments):
    mutants = read_mutants([word for word in arguments if not word.startswith("--")])
    if not mutants:
        print("no mutants")
        return 1
    if "--list" in arguments:
        for mutant in mutants:
            print(f"| {mutant.name} | {mutant.what} | {', '.join(mutant.tests)} |")
        return 0
    gone = [f"{mutant.name}: {why}" for mutant in mutants for file, why in [mutant.find(SOURCE)] if file is None]
    if gone:
        sys.exit("FAILED: " + "\n".join(gone))
    if "--standing" in arguments:
        return 0
    copy_tree()
    must("cmake", "-S", TREE, "-B", BUILD, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS_DEBUG=-O0",
         "-DWEIR_BUILD_BENCH=OFF", "-DWEIR_BUILD_DOCTOR=OFF", "-DWEIR_BUILD_EXAMPLES=OFF", "-DWEIR_INSTALL=OFF", "-DWEIR_TESTS_ALONE=ON")
    support = ["tests/CMakeFiles/weir_tests.dir/main.cpp.o"]
    support += [f"tests/CMakeFiles/weir_tests.dir/support/{path.name}.o"
                for path in sorted((SOURCE / "tests" / "support").glob("*.cpp"))]
    link, libraries = linker_of(support)
    targets = sorted({target for mutant in mutants for target in mutant.targets()})
    built = build(support + libraries + targets)
    if built.returncode != 0:
        sys.exit(f"FAILED: the tree as it is does not build\n{built.stdout[-5000:]}")
    keep_products()
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    linked = link([f"tests/CMakeFiles/weir_tests.dir/{test}.cpp.o" for test in tests
                   if not test.startswith("schedules/")])
    if linked.returncode != 0:
        sys.exit(f"FAILED: the tests do not link\n{linked.stdout[-5000:]}")
    for test in tests:
        if (killer := run_tests([test], SECONDS)) is not None:
            sys.exit(f"FAILED: without any mutant already, in {test}: {killer}")
    bad = 0
    width = max(len(mutant.name) for mutant in mutants)
    print(f"{'mutant':{width}}  time  killed by")
    for mutant in mutants:
        start = time.monotonic()
        good, text = verdict(mutant, link, support + libraries)
        bad += not good
        print(f"{mutant.name:{width}}  {time.monotonic() - start:3.0f}s  {'' if good else '! '}{text}", flush=True)
    print(f"{len(mutants) - bad} killed, {bad} not")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
