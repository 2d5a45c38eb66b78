"""What compare.py has the load client do, and to which kind of server."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Workload:
    text: str  # for the reader of the table
    arguments: tuple  # of the load client
    kind: str = "echo"  # of the servers, as in servers.json
    beside: tuple = ()  # kinds of those that run for comparison only
    certificate: str = "ecdsa"  # of servers with TLS
    unit: str = "request"
    # Receive buffer for servers that take `--buffer`: it decides the cost of large messages, and they
    # cannot find a better one by themselves.
    buffer: int = 0
    warmup: float = 0  # seconds, at the least
    cold: bool = False  # none
    seconds: float = 0  # measured, at the least
    most_rounds: int = 1000
    # As many connections as the limit of descriptors allows, but not more than this.
    most_connections: int = 0
    without: dict = dataclasses.field(default_factory=dict)  # server: why it takes no part
    group: str = ""  # of which it is one; taken by the name of that, or by its own, alone

    @property
    def only_when_named(self):
        return bool(self.group)

    @property
    def depth(self):
        return self._number("--depth", 1)

    @property
    def size(self):
        """Bytes of a message."""
        return self._number("--size", 64)

    def _number(self, option, otherwise):
        return int(self.arguments[self.arguments.index(option) + 1]) if option in self.arguments else otherwise


def of(*arguments, **fields):
    text, *rest = arguments
    return Workload(text, tuple(str(argument) for argument in rest), **fields)


def tls(text, *arguments, **fields):
    """A workload for servers with TLS, with the same without TLS beside them."""
    return of(f"TLS, {text}", *arguments, **{"kind": "tls", "beside": ("plain",)} | fields)


def size_name(size):
    return f"{size >> 20}MiB" if size >= 1 << 20 else f"{size >> 10}KiB"


def sizes():
    """One connection, messages of each size: what a MiB costs must not jump between two of them."""
    return {f"size-{size_name(size)}": of(f"1 connection, {size_name(size)}", "--connections", 1, "--size", size,
                                          buffer=min(max(size, 4096), 65536), group="sizes")
            for size in (1 << shift for shift in range(12, 25))}


def bulk():
    """Many connections that move much each, from their first message on and later."""
    return {f"bulk-{count}{'-cold' if cold else ''}": of(
                f"{count} connections, 1 MiB{', the first second' if cold else ''}", "--connections", count,
                "--size", 1 << 20, buffer=65536, group="bulk", seconds=1, cold=cold)
            for count in (4, 16, 64, 200) for cold in (True, False)}


AND_CIPHER = ("plain", "cipher")
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
    "tls-64x64": tls("64 connections, 64 B", "--connections", 64, beside=AND_CIPHER),
    "tls-64x64x16": tls("64 connections, 64 B, 16 in flight on each", "--connections", 64, "--depth", 16),
    "tls-16KiB": tls("16 connections, 16 KiB", "--connections", 16, "--size", 16384, buffer=16384,
                     beside=AND_CIPHER),
    "tls-1MiB": tls("4 connections, 1 MiB", "--connections", 4, "--size", 1 << 20, buffer=65536,
                    beside=AND_CIPHER),
    "tls-handshake": tls("connect, full handshake (ECDSA), one echo of 64 B, close, over 16 slots",
                         "--connections", 16, "--churn", beside=(), seconds=0.5),
    "tls-resumed": tls("the same, with resumed sessions", "--connections", 16, "--churn", "--resume",
                       beside=(), seconds=0.5),
    "tls-calm": tls("64 connections, 64 B, 5,000 requests/s in all; latency from when a request was due",
                    "--connections", 64, "--rate", 5000, beside=(), certificate="rsa", seconds=0.5),
    "tls-flood": tls("the same beside full handshakes (RSA-2048) without end over 64 slots; the CPU "
                     "serves both", "--connections", 64, "--rate", 5000, "--flood", 64, beside=(),
                     certificate="rsa", seconds=0.5),
    # Clients that go with RST: an error for the server, where churn gives it an end of stream.
    "churn-reset": of("churn, closed by RST", "--connections", 64, "--churn", "--reset",
                      group="resets"),
    **sizes(),
    **bulk(),
}
GROUPS = {group: [name for name, workload in WORKLOADS.items() if workload.group == group]
          for group in sorted({workload.group for workload in WORKLOADS.values()} - {""})}
