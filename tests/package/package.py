#!/usr/bin/env python3
"""Installs weir into a prefix of its own, packs it, and builds a program outside of the tree against
it by each of the ways that users have: find_package, pkg-config, add_subdirectory.

Usage: package.py SOURCE_DIR BUILD_DIR
"""

import pathlib
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile

SOURCE, BUILD = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])
CONSUMER = SOURCE / "tests" / "package" / "consumer"
README = SOURCE / "README.md"
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Werror"]


def run(*command, **options):
    command = [str(word) for word in command]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          **options)
    if done.returncode != 0:
        sys.exit(f"FAILED: {' '.join(command)}\n{done.stdout}")
    return done.stdout


def check(name, program):
    refusal = "[info] using epoll, since "  # of io_uring: what this machine is says nothing of the package
    said = [line for line in run(program).splitlines() if refusal not in line]
    if said != ["hello"]:
        sys.exit(f"FAILED: {name}: the program says something else")
    print(f"passed: {name}")


def build_with_cmake(directory, *settings):
    run("cmake", "-S", CONSUMER, "-B", directory, "-G", "Ninja", *settings)
    run("cmake", "--build", directory)
    if (directory / "consumer_tls").exists():
        check("TLS, " + directory.name, directory / "consumer_tls")
    return directory / "consumer"


def check_hardening(program, library):
    """What hardening-check of Debian's devscripts looks for."""
    symbols = run("nm", "-D", "--undefined-only", program)
    if "__stack_chk_fail" not in symbols:
        sys.exit(f"FAILED: {program} has no stack protector")
    if not re.search(r"__\w+_chk\b", symbols.replace("__stack_chk_fail", "")):
        sys.exit(f"FAILED: {program} calls no function of _FORTIFY_SOURCE")
    told = run("readelf", "-hldW", program)
    for what, sign in (("position independent", r"Type:\s+DYN"), ("relro", "GNU_RELRO"),
                       ("bound at its start", "BIND_NOW|FLAGS.* NOW")):
        if not re.search(sign, told):
            sys.exit(f"FAILED: {program} is not {what}")
    # The program itself has the property only where the C runtime has it too.
    if platform.machine() == "x86_64":
        objects = run("readelf", "-nW", library)
        if objects.count("File: ") != len(re.findall(r"x86 feature:.*SHSTK", objects)):
            sys.exit(f"FAILED: not all of {library} is made for a shadow stack")
    print("passed: hardening")


def check_new_project(prefix, work):
    """What weir-new writes builds, without a warning, passes its test, and answers."""
    new = prefix / "bin" / "weir-new"
    told = run(new, "line-server", cwd=work)
    project = work / "line-server"
    if not told.startswith("cmake -S line-server "):
        sys.exit(f"FAILED: weir-new does not say how to go on: {told}")
    for refused in ("line-server", "../elsewhere", "", "test"):  # the first is there
        if subprocess.run([new, refused], cwd=work, stderr=subprocess.DEVNULL, check=False).returncode != 1:
            sys.exit(f"FAILED: weir-new takes the name '{refused}'")
    run(prefix / "bin" / "weir-lint", project)
    run("cmake", "-S", project, "-B", project / "build", "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={prefix}",
        f"-DCMAKE_CXX_FLAGS={' '.join(WARNINGS)}")
    run("cmake", "--build", project / "build")
    run("ctest", "--test-dir", project / "build", "--output-on-failure", "--no-tests=error")
    with subprocess.Popen([project / "build" / "line-server", "127.0.0.1:0"], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True) as server:
        port = server.stdout.readline().rpartition(":")[2]
        with socket.create_connection(("127.0.0.1", int(port))) as client:
            client.sendall(b"hello\n")
            answer = client.makefile().readline()
        server.terminate()
        if answer != "you said hello\n" or server.wait() != 0:
            sys.exit(f"FAILED: the new project's server says {answer!r}, and ends with {server.returncode}")
    print("passed: a new project")


def main(work):
    compilers = [compiler for compiler in ("g++", "clang++-19") if shutil.which(compiler)]
    if len(compilers) == 1:
        print("skipped: clang++-19 is not here")

    prefix = work / "prefix"
    run("cmake", "--install", BUILD, "--prefix", prefix)
    built = re.search(r"--target (.*)", README.read_text(encoding="utf-8"))[1].split()
    files = [*prefix.glob("bin/*"), *prefix.rglob("lib*.a")]
    run(prefix / "bin" / "weir-lint", SOURCE / "examples")  # a script, which nobody builds
    for script in ("weir-lint", "weir-new", "weir-sim-view"):
        files.remove(prefix / "bin" / script)
    built.append("weir-top")  # weir-doctor brings it along, where ncurses is
    missing = {file.stem.removeprefix("lib").replace("-tls", "_tls") for file in files} - set(built)
    if missing:
        sys.exit(f"FAILED: README installs {', '.join(missing)}, which it has not built")
    print("passed: README builds what it installs")
    headers = {str(file.relative_to(prefix / "include")) for file in prefix.rglob("include/**/*.h")}
    for inner in ("weir/io/engines.h", "weir/io/uring_ring.h", "weir/net/server/share.h"):
        if inner in headers:
            sys.exit(f"FAILED: {inner} is installed, which no header of users includes")
    print(f"passed: {len(headers)} headers, no inner ones")
    for program in prefix.glob("bin/weir-*"):
        if program.name in ("weir-doctor", "weir-top"):
            check_hardening(program, next(prefix.rglob("libweir.a")))
    for compiler in compilers:
        for standard in ("20", "23"):
            name = f"find_package, {compiler}, C++{standard}"
            check(name, build_with_cmake(
                work / f"{compiler}-{standard}", f"-DCMAKE_PREFIX_PATH={prefix}",
                f"-DCMAKE_CXX_COMPILER={compiler}", f"-DCMAKE_CXX_STANDARD={standard}"))

    check_new_project(prefix, work)

    pc_files = list(prefix.rglob("weir.pc"))
    flags = run("pkg-config", "--cflags", "--libs", "weir",
                env={"PATH": "/usr/bin:/bin", "PKG_CONFIG_PATH": str(pc_files[0].parent)}).split()
    for compiler in compilers:
        program = work / f"by-pkg-config-{compiler}"
        run(compiler, "-std=c++20", *WARNINGS, CONSUMER / "main.cpp", "-o", program, *flags)
        check(f"pkg-config, {compiler}", program)

    if next(prefix.rglob("weir-tls.pc"), None):
        flags = run("pkg-config", "--cflags", "--libs", "weir-tls", env={
                        "PATH": "/usr/bin:/bin", "PKG_CONFIG_PATH": str(pc_files[0].parent)}).split()
        program = work / "tls-by-pkg-config"
        run("g++", "-std=c++20", *WARNINGS, CONSUMER / "tls.cpp", "-o", program, *flags)
        check("pkg-config, TLS", program)
    else:
        print("skipped: weir-tls was not built")

    check("add_subdirectory, shared library", build_with_cmake(
        work / "subdirectory", f"-DWEIR_SOURCE={SOURCE}", "-DBUILD_SHARED_LIBS=ON",
        "-DCMAKE_CXX_FLAGS=-O0"))
    library = next((work / "subdirectory").rglob("libweir.so"))
    foreign = [line for line in run("nm", "-DC", "--defined-only", library).splitlines()
               if "weir" not in line]
    if foreign:
        sys.exit("FAILED: the shared library shows what is not its own:\n" + "\n".join(foreign[:20]))
    soname = run("readelf", "-d", library)
    if "libweir.so.0.2" not in soname:
        sys.exit("FAILED: the shared library has no SONAME with its version")
    print("passed: symbols and SONAME of the shared library")

    if shutil.which("dpkg-deb") is None:
        print("skipped: dpkg-deb is not here")
        return
    run("cpack", "-B", work / "deb", cwd=BUILD)
    parts = {"libweir-dev_*.deb": ["/usr/include/weir/weir.h", "libweir.a", "weirConfig.cmake", "weir.pc",
                                   "/usr/bin/weir-doctor", "weir-gdb.py", "/libweir-dev/copyright"],
             "libweir-doc_*_all.deb": ["/weir/README.md", "/weir/docs/guide.md", "/weir/examples/chat.cpp",
                                       "/libweir-doc/copyright"]}
    if shutil.which("doxygen") is None:
        print("skipped: doxygen is not here, libweir-doc has no site")
    else:
        parts["libweir-doc_*_all.deb"].append("/weir/html/index.html")
    for pattern, wanted in parts.items():
        package = next((work / "deb").glob(pattern), None)
        if package is None:
            sys.exit(f"FAILED: cpack makes no {pattern}")
        listed = run("dpkg-deb", "--contents", package)
        for part in wanted:
            if part not in listed:
                sys.exit(f"FAILED: {package.name} has no {part}")
        if ("/usr/include/" in listed) != (pattern == "libweir-dev_*.deb"):
            sys.exit(f"FAILED: {package.name} has headers, or none")
    print("passed: the Debian packages")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        main(pathlib.Path(directory))
