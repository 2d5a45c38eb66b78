#!/usr/bin/env python3
"""What a request costs the server in user-space instructions does not grow unseen.

instructions.py SOURCE_DIRECTORY BUILD_DIRECTORY

callgrind counts them to about 1 %, on a busy machine too: under it the server is the slower side, and
finds as many requests in a turn as there are connections. The limits stand some 2 % above what was
measured last on a quiet machine (docs/performance.md), for GCC 12 at -O2: they are to go down with the figure, and up
only for something that is worth it.
"""

import pathlib
import shutil
import sys

LIMITS = {"uring": 435, "epoll": 700}
TRIES = 6


def main():
    source, build = (pathlib.Path(argument) for argument in sys.argv[1:3])
    sys.path.insert(0, str(source / "bench"))
    import instructions
    from servers import BenchError, end_upon_signals, pick_cores, running
    if not shutil.which("valgrind"):
        print("skipped: valgrind is not here")
        return 0
    end_upon_signals()
    options = instructions.Options(str(build / "bench/load_client"), requests=4000, repeat=1)
    failed = False
    for engine, limit in LIMITS.items():
        command = [str(build / "bench/weir_echo"), "--engine", engine]
        try:
            with running(command):
                pass
            for _ in range(TRIES):
                count = instructions.measure(command, options, pick_cores())[0]
                if count <= limit:
                    break
        except BenchError as error:  # no io_uring, say; or callgrind is not to be asked here
            print(f"skipped: {error}")
            continue
        print(f"{engine}: {count:.1f} instructions for a request of 64 bytes, at most {limit}")
        failed |= count > limit
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
