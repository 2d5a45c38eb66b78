"""What compare.py has the load client do, and to which kind of server."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Workload:
    text: str  # for the reader of the table
    arguments: tuple  # of the load client
    kind: str = "echo"  # of the servers, as in servers.json
    unit: str = "request"
    # Receive buffer for servers that take `--buffer`: it decides the cost of large messages, and they
    # cannot find a better one by themselves.
    buffer: int = 0
    warmup: float = 0  # seconds, at the least
    seconds: float = 0  # measured, at the least
    most_rounds: int = 1000
    # As many connections as the limit of descriptors allows, but not more than this.
    most_connections: int = 0
    without: dict = dataclasses.field(default_factory=dict)  # server: why it takes no part
    only_when_named: bool = False


def of(*arguments, **fields):
    text, *rest = arguments
    return Workload(text, tuple(str(argument) for argument in rest), **fields)


COMMON_BUFFERS = ("a limit for an echo alone: peers that do not read take all its common buffers, and "
                  "hold up the others")

WORKLOADS = {
    "ping-pong": of("1 connection, 64 B", "--connections", 1),
    "64x64": of("64 connections, 64 B", "--connections", 64),
    "1000x64": of("1000 connections, 64 B", "--connections", 1000),
    "64x64x16": of("64 connections, 64 B, 16 in flight on each", "--connections", 64, "--depth", 16),
    "16KiB": of("16 connections, 16 KiB", "--connections", 16, "--size", 16384, buffer=16384),
    "1MiB": of("4 connections, 1 MiB", "--connections", 4, "--size", 1 << 20, buffer=65536),
    "churn": of("connect, one echo of 64 B, close, over 64 slots", "--connections", 64, "--churn"),
    "paced": of("64 connections, 64 B, 20,000 requests/s in all; latency from when a request was due",
                "--connections", 64, "--rate", 20000),
    "slow-mix": of("32 connections, 64 B, beside 32 that send all they can and read slowly; latency of "
                   "the former, the CPU serves both", "--connections", 32, "--slow", 32, warmup=1.0,
                   without={"reference-uring": COMMON_BUFFERS}),
    "broadcast": of("one of 1000 connections sends 64 B, all receive", "--connections", 1000,
                    "--broadcast", kind="broadcast", unit="delivery", warmup=0.2),
    "timers": of("{connections} connections (limit of open files: {limit}), 64 B, a deadline of 30 s set "
                 "anew for every read", kind="deadline", warmup=0.5, seconds=1.5, most_rounds=3,
                 most_connections=100000),
    # Clients that go with RST: an error for the server, where churn gives it an end of stream.
    "churn-reset": of("churn, closed by RST", "--connections", 64, "--churn", "--reset",
                      only_when_named=True),
}
