"""What the coroutines of a program that uses weir wait for, in gdb: of a process or of a core.

  weir tasks   each loop's tasks as a tree: function, file and line where each waits, for what, and
               who spawned it
  weir conns   the connections of each loop
  weir loops   the loops, and the threads that run them
  weir events  what came last on each loop, the newest last: "weir events 100", or the last 32

and values of weir::Task, weir::Chunk and weir::SocketAddress in words.

gdb loads this by itself for a program that weir is in, if it trusts the directory where it lies
(`add-auto-load-safe-path`); else: `source …/weir-gdb.py`. It needs the program's symbols, and no debug
information: where the parts of weir's objects lie says the library itself (weir_debugger_parts).
Values in words need the program's debug information (-g). Nothing of the program runs, and nothing of
it is changed.
"""

import os
import re
import socket
import struct
import time

import gdb

KIND_TASK, KIND_GROUP = 0, 1
PLACE, SEVERAL = 1 << 62, 1 << 63
HELPERS = ("coro/task.h", "coro/branch.h", "coro/take_result.h", "core/event_loop.h", "core/on.h")
MOST_LINES = 100_000
DEEPEST = 256
# Of a coroutine's frame: what resumes it, what destroys it, and then its promise (the Itanium ABI of
# GCC and Clang alike).
PROMISE = 16


# ---- memory ------------------------------------------------------------------------------------

def read(address, size):
    return bytes(gdb.selected_inferior().read_memory(address, size))


def unsigned(address, size=8):
    return int.from_bytes(read(address, size), "little")


def text_at(address):
    if address == 0:
        return ""
    text = b""
    while b"\0" not in text and len(text) < 65536:
        # Not beyond the page, which may be the last.
        text += read(address + len(text), 256 - (address + len(text)) % 256)
    return text.partition(b"\0")[0].decode("utf-8", "replace")


def std_string(address):
    """Of libstdc++: where the letters are, and how many."""
    return read(unsigned(address), min(unsigned(address + 8), 65536)).decode("utf-8", "replace")


parts = {}


def part(name):
    """Where a member lies, or how large something is."""
    if not parts:
        entry = symbol("weir_debugger_parts", "the program is of no version of weir that this knows")
        while unsigned(entry, 1) != 0:
            parts[text_at(entry)] = unsigned(entry + 44, 4)
            entry += 48
    if name not in parts:
        raise gdb.GdbError(f"weir: there is no {name}: this script is of another version of weir")
    return parts[name]


def symbol(name, otherwise):
    try:
        return int(gdb.parse_and_eval("&" + name))
    except gdb.error as error:
        raise gdb.GdbError(f"weir: there is no symbol {name}: {otherwise}") from error


def items(head, link_offset):
    """Of a List: what has the links, the first first."""
    following = part("Link.next_")
    seen = 0
    link = unsigned(head + following)
    while link not in (head, 0) and seen < 1_000_000:
        yield link - link_offset
        link = unsigned(link + following)
        seen += 1


classes = {}


def class_of(address):
    """Of an object with virtual functions, by the symbol of its table; and where it begins."""
    table = unsigned(address)
    if table not in classes:
        symbol = gdb.execute(f"info symbol {table:#x}", to_string=True)
        found = re.match(r"vtable for (.*) \+ \d+( |$)", symbol)
        classes[table] = found[1] if found else ""
    to_top = int.from_bytes(read(table - 16, 8), "little", signed=True)
    return classes[table], address + to_top


# ---- loops --------------------------------------------------------------------------------------

class Loop:
    def __init__(self, entry):
        self.number = unsigned(entry + part("LoopEntry.number"))
        self.hidden = unsigned(entry + part("LoopEntry.hidden"), 1) != 0
        self.address = unsigned(entry + part("LoopEntry.number") - 8)
        self.scheduler = self.address  # its first base
        self.name = std_string(self.address + part("EventLoop.name_")) or f"loop {self.number}"
        engine, _ = class_of(unsigned(self.address + part("EventLoop.engine_")))
        self.engine = "io_uring" if "Uring" in engine else "epoll" if "Epoll" in engine else engine
        self.runs = unsigned(self.address + part("EventLoop.running_"), 1) != 0
        self.thread = unsigned(self.address + part("EventLoop.thread_"), 4)
        self.clock_ms = unsigned(self.scheduler + part("Scheduler.clock_ms_"), 4)

    def top_scope(self):
        return self.scheduler + part("Scheduler.top_")

    def running_scope(self):
        """Of the task that runs now; 0: none."""
        if not self.runs:
            return 0
        return unsigned(self.scheduler + part("Scheduler.now_running_") + part("Running.scope_"))

    def counter(self, name):
        return unsigned(self.address + part("EventLoop.metrics_") + part("Metrics." + name))

    def connections(self):
        link = part("LoopResource.link")
        for resource in items(self.address + part("EventLoop.resources_"), link):
            name, address = class_of(resource)
            if name == "weir::detail::Connection":
                yield Connection(address)
            elif name == "weir::detail::Share":
                for stream in items(address + part("Share.roster_") + part("Roster.open_"), link):
                    yield Connection(class_of(stream)[1])


def loops():
    """All of them; the inspector's own is hidden."""
    all_loops = unsigned(symbol("_ZZN4weir6detail8AllLoops8instanceEvE3all",
                                "this program has no event loops of weir, or no symbols"))
    if all_loops == 0:
        return []
    link = part("LoopEntry.link")
    return [Loop(entry) for entry in items(all_loops + part("AllLoops.entries_"), link)]


def now_ms(all_loops):
    """What the loops' clocks say; of a core, what the last of them said."""
    target = getattr(gdb.selected_inferior(), "connection", None)
    if target is not None and target.type == "native":
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000_000 & 0xFFFFFFFF
    latest = all_loops[0].clock_ms if all_loops else 0
    for loop in all_loops:
        if (loop.clock_ms - latest) & 0xFFFFFFFF < 1 << 31:
            latest = loop.clock_ms
    return latest


def thread_of(loop):
    for thread in gdb.selected_inferior().threads():
        if thread.ptid[1] == loop.thread or thread.ptid[2] == loop.thread:
            return f"thread {thread.num} (LWP {loop.thread})"
    return f"LWP {loop.thread}"


# ---- connections --------------------------------------------------------------------------------

def address_words(raw):
    """Of a sockaddr."""
    family = struct.unpack_from("=H", raw)[0]
    if family == socket.AF_INET:
        return f"{socket.inet_ntop(family, raw[4:8])}:{struct.unpack_from('!H', raw, 2)[0]}"
    if family == socket.AF_INET6:
        return f"[{socket.inet_ntop(family, raw[8:24])}]:{struct.unpack_from('!H', raw, 2)[0]}"
    if family == socket.AF_UNIX:
        path = raw[2:]
        if path[:1] == b"\0" and len(path) > 1:
            path = b"@" + path[1:]
        return "unix:" + path.partition(b"\0")[0].decode("utf-8", "replace")
    return "unknown"


class Connection:
    def __init__(self, address):
        identity = address + part("Connection.identity_")
        inbox = address + part("Connection.inbox_")
        outbox = address + part("Connection.outbox_")
        level = outbox + part("Outbox.level_")
        # Behind what it counts, of which the topmost bit says something else.
        identifier = unsigned(identity + part("Identity.received_") + 8)
        peer = identity + part("Identity.peer_")
        self.name = f"{address_words(read(peer, 28))}#{identifier & ~(1 << 63)}"
        self.unread = unsigned(inbox + part("Inbox.unread_"))
        self.input_high = unsigned(inbox + part("Inbox.high_"), 4)
        self.pending = unsigned(level + part("OutboxLevel.pending_"))
        self.high = unsigned(outbox + part("Outbox.high_"), 4)
        self.sent = unsigned(outbox + part("Outbox.sent_"))
        self.is_secure = unsigned(address + part("Connection.transform_")) != 0
        reader = unsigned(inbox + part("Inbox.reader_"))
        self.reader = 0
        if reader != 0:
            waiter = reader + part("Reader.waiter")
            self.reader = unsigned(waiter + part("Waiter.scope_"))


# ---- tasks --------------------------------------------------------------------------------------

def function_name(signature):
    """Without result, parameters and what a compiler adds, as an inspector writes it."""
    text = signature.partition(" [with ")[0]
    end = text.rfind(")")
    if end >= 0 and not text.endswith(">"):
        depth = 0
        for i in range(end, -1, -1):
            depth += {")": 1, "(": -1}.get(text[i], 0)
            if depth == 0:
                text = text[:i] if i > 0 else text
                break
    depth = 0
    for i in range(len(text) - 1, -1, -1):
        depth += {">": 1, ")": 1, "}": 1, "<": -1, "(": -1, "{": -1}.get(text[i], 0)
        if text[i] == " " and depth == 0:
            text = text[i + 1:]
            break
    for unnamed in ("{anonymous}::", "(anonymous namespace)::"):
        text = text.removeprefix(unnamed)
    return text


class Place:
    """Where a coroutine waits, and for what: it is the first of its promise."""

    def __init__(self, address):
        where = unsigned(address + part("Place.where_"))
        what = unsigned(address + part("Place.what_"))
        self.file = self.function = self.words = ""
        self.line = 0
        if where != 0:  # std::source_location points at: file, function, line, column
            self.file, self.function = text_at(unsigned(where)), text_at(unsigned(where + 8))
            self.line = unsigned(where + 16, 4)
        kind = what & (PLACE | SEVERAL)
        self.awaited = what - PLACE if kind == PLACE else 0
        self.several = what - SEVERAL if kind == SEVERAL else 0
        if what != 0 and kind == 0:
            self.words = text_at(what)

    def text(self):
        words = function_name(self.function) if self.line else "an operand"
        if self.line:
            words += f" at {self.file}:{self.line}"
        return words


def has_ended(promise):
    return unsigned(promise - PROMISE) == 0


def stands(promise):
    """Whether there is still a coroutine of it, as far as its frame tells."""
    try:
        resumes = unsigned(promise - PROMISE) if promise != 0 else 0
        return resumes != 0 and " in section " in gdb.execute(f"info symbol {resumes:#x}", to_string=True)
    except gdb.MemoryError:
        return False


def place_of_root(scope):
    """Where the coroutine of a task or generator waits; 0 if it has ended."""
    root = scope - part("Root.scope_")
    name, _ = class_of(root)
    if "AsyncGenerator<" in name:
        return root - part("sizeof Placed")
    # OwnedTask has the handle behind what Member has.
    promise = unsigned(root + part("sizeof TaskGroup.Member")) + PROMISE
    return 0 if has_ended(promise) else promise


def spawned_by(scope):
    """Who spawned the task of that scope, in words; nothing where that is not known."""
    if unsigned(scope + part("Scope.kind_"), 1) != KIND_TASK:
        return ""
    where = unsigned(scope - part("Root.scope_") + part("Root.spawned_"))
    if where == 0 or (file := text_at(unsigned(where))).endswith(HELPERS):
        return ""
    return f" (spawned by {function_name(text_at(unsigned(where + 8)))} at {file}:{unsigned(where + 16, 4)})"


def branches_of(several):
    """The promises of when_any's and when_all's branches that were started."""
    promise = unsigned(several + part("Junction.started_"))
    seen = 0
    while promise != 0 and seen < MOST_LINES:
        yield promise
        promise = unsigned(promise + part("BranchPromise.next"))
        seen += 1


class Tree:
    def __init__(self, loop, now):
        self.now = now
        self.lines = []
        self.running = loop.running_scope()
        self.readers = {connection.reader: connection.name for connection in loop.connections()}
        self.below(loop.top_scope(), 0)

    def below(self, scope, depth):
        if depth > DEEPEST:
            return
        for child in reversed(self.children(scope)):
            if unsigned(child + part("Scope.kind_"), 1) == KIND_GROUP:
                self.below(child, depth)
            else:
                self.below(child, self.chain(place_of_root(child), depth, child))

    @staticmethod
    def children(scope):
        child = unsigned(scope + part("Scope.below_"))
        if unsigned(scope + part("Scope.has_extra_"), 1) != 0:
            child = unsigned(child)  # the first that Extra has
        found = []
        while child != 0 and len(found) < MOST_LINES:
            found.append(child)
            child = unsigned(child + part("Scope.next_"))
        return found

    def chain(self, address, depth, scope):
        """Gives the depth of what stands below the last."""
        own = scope
        begin = len(self.lines)
        while address != 0 and len(self.lines) < MOST_LINES:
            place = Place(address)
            hands_on = place.file.endswith(HELPERS)
            if not hands_on or (place.awaited == 0 and place.several == 0):
                self.add(place, depth, scope, own, hands_on)
                depth += 1
                own = 0
            if scope == self.running and scope != 0:
                # What it awaited last may be over, and gone.
                address = place.awaited if stands(place.awaited) else 0
                if address == 0:
                    if len(self.lines) == begin:
                        self.add(place, depth, scope, own, True)
                        depth += 1
                    line, separator, by = self.lines[-1].partition(" (spawned by ")
                    line = line.partition(" s: ")[0].removesuffix(" s") + " s: runs now"
                    self.lines[-1] = line + separator + by
                continue
            if place.several != 0:
                for promise in branches_of(place.several):
                    self.branch(promise, depth)
            address = place.awaited
        return depth

    def branch(self, promise, depth):
        if promise == 0 or has_ended(promise) or depth > DEEPEST:
            return
        # Behind its place: the junction, the index, the scope.
        scope = promise + part("sizeof Place") + 16
        self.below(scope, self.chain(promise, depth, scope))

    def add(self, place, depth, scope, own, hands_on):
        waits = (self.now - unsigned(scope + part("Scope.ran_ms_"), 4)) & 0xFFFFFFFF
        if waits >= 1 << 31:
            waits = 0
        text = "an operand" if hands_on else place.text()
        if own in self.readers and own != 0:
            name, separator, rest = text.partition(" at ")
            text = f"{name} [{self.readers[own]}]{separator}{rest}"
        line = "  " * (depth + 1) + f"{text}, {waits / 1000:.3f} s"
        line += f": {place.words}" if place.words else ""
        self.lines.append(line + (spawned_by(own) if own != 0 else ""))


# ---- commands -----------------------------------------------------------------------------------

class Weir(gdb.Command):
    """What the coroutines of weir wait for: weir tasks, weir conns, weir loops."""

    def __init__(self):
        super().__init__("weir", gdb.COMMAND_DATA, prefix=True)


class Shown(gdb.Command):
    def invoke(self, argument, from_tty):
        if gdb.selected_inferior().pid == 0:
            raise gdb.GdbError("weir: there is no process, and no core")
        classes.clear()
        parts.clear()
        self.argument = argument.strip()
        try:
            self.show(loops())
        except gdb.MemoryError as error:
            raise gdb.GdbError(f"weir: the process is in the midst of a change, or broken: {error}") from error


def head(loop):
    state = f"runs in {thread_of(loop)}" if loop.runs else "does not run"
    return f'loop {loop.number} "{loop.name}" ({loop.engine}): {state}'


class Tasks(Shown):
    """The tasks of each loop as a tree: where each waits, and for what.

For how long is since the task ran last; in a core, until any loop ran last."""

    def __init__(self):
        super().__init__("weir tasks", gdb.COMMAND_DATA)

    def show(self, all_loops):
        now = now_ms(all_loops)
        for loop in all_loops:
            if loop.hidden:
                continue
            gdb.write(head(loop) + "\n")
            for line in Tree(loop, now).lines:
                gdb.write(line + "\n")


class Connections(Shown):
    """The connections of each loop: bytes unread, pending and sent, and marks."""

    def __init__(self):
        super().__init__("weir conns", gdb.COMMAND_DATA)

    def show(self, all_loops):
        for loop in all_loops:
            if loop.hidden:
                continue
            gdb.write(head(loop) + "\n")
            for of in loop.connections():
                gdb.write(f"  {of.name}: {of.unread} of {of.input_high} unread, {of.pending} of {of.high} pending, "
                          f"{of.sent} sent{', TLS' if of.is_secure else ''}\n")


class Loops(Shown):
    """The loops, the threads that run them, and their counters."""

    def __init__(self):
        super().__init__("weir loops", gdb.COMMAND_DATA)

    def show(self, all_loops):
        for loop in all_loops:
            if not loop.hidden:
                counters = ", ".join(f"{loop.counter(name)} {name}" for name in ("turns", "resumed"))
                gdb.write(f"{head(loop)}; {counters}\n")


TASK_EVENTS = {1: "resumed", 2: "began", 3: "ended"}
OPENED, BROKE, CLOSED, STALLED = 4, 5, 6, 7
# Of weir::errc.
FAILURES = ("", "the deadline has passed", "the connection was idle for too long", "the peer does not respond",
            "the name is not known", "the name service did not answer; try again", "closed from this side")


def event_words(kind, more, what):
    if kind in TASK_EVENTS:
        words = (f"task {more:x}" if more else "what is in no task") + " " + TASK_EVENTS[kind]
        try:
            file = text_at(unsigned(what)) if what != 0 else ""
            if file.endswith(HELPERS):
                words += " in an operand"
            elif what != 0:
                words += f" in {function_name(text_at(unsigned(what + 8)))} at {file}:{unsigned(what + 16, 4)}"
        except gdb.MemoryError:
            words = words.partition(" in ")[0]
        return words
    if kind == OPENED:
        return f"connection {what} opened"
    if kind == BROKE:
        failure = more - (1 << 24) if more >> 23 else more
        known = os.strerror(failure) if failure > 0 else FAILURES[-failure] if -failure < len(FAILURES) else \
            "its TLS, or another transform, failed"
        return f"connection {what} broke: {known}"
    if kind == CLOSED:
        return f"connection {what} " + ("reset" if more else "closed")
    return f"a turn had taken {what} ms" if kind == STALLED else ""


class Events(Shown):
    """What came last on each loop, the newest last; or the last N: weir events N."""

    def __init__(self):
        super().__init__("weir events", gdb.COMMAND_DATA)

    def show(self, all_loops):
        now = now_ms(all_loops)
        if not re.fullmatch(r"\d{0,9}", self.argument):
            raise gdb.GdbError("weir events [N]: how many, of each loop")
        most = int(self.argument or 32)
        for loop in all_loops:
            if loop.hidden:
                continue
            gdb.write(head(loop) + "\n")
            recorder = loop.scheduler + part("Scheduler.flight")
            end = unsigned(recorder + part("FlightRecorder.end_"))
            words = unsigned(recorder + part("FlightRecorder.words_"))
            size = part("FlightRecorder.kEvents")
            for i in range(max(0, end - min(most, size)), end):
                first, what = struct.unpack("=QQ", read(words + 16 * (i % size), 16))
                age = max(0, ((now - (first >> 32)) + (1 << 31) & 0xFFFFFFFF) - (1 << 31))
                gdb.write(f"  {age / 1000:.3f} s ago: {event_words(first & 0xFF, first >> 8 & 0xFFFFFF, what)}\n")


# ---- values -------------------------------------------------------------------------------------

class TaskPrinter:
    def __init__(self, value):
        self.value = value

    def to_string(self):
        frame = int(self.value["handle_"]["_M_fr_ptr"])
        if frame == 0:
            return "a task that is empty"
        if has_ended(frame + PROMISE):
            return "a task that has ended"
        place = Place(frame + PROMISE)
        if place.line == 0:
            return "a task that has not awaited anything"
        return f"a task at {place.text()}" + (f": {place.words}" if place.words else "")


class ChunkPrinter:
    def __init__(self, value):
        self.value = value

    def to_string(self):
        size = int(self.value["size_"])
        if size == 0:
            return "a chunk of no bytes"
        shown = read(int(self.value["data_"]), min(size, 200))
        text = "".join(chr(c) if 32 <= c < 127 and c not in b'"\\' else f"\\x{c:02x}" for c in shown)
        return f'a chunk of {size} bytes: "{text}"' + ("..." if size > 200 else "")


class SocketAddressPrinter:
    def __init__(self, value):
        self.value = value

    def to_string(self):
        raw = self.value["raw_"]
        size = int(raw["size"])
        return address_words(read(int(raw["bytes"].address), max(2, min(size, 112)))) if size else "no address"


def printer_of(value):
    name = value.type.strip_typedefs().name or ""
    if name.startswith("weir::Task<") and name.count("::Awaiter") == 0:
        return TaskPrinter(value)
    return {"weir::Chunk": ChunkPrinter, "weir::SocketAddress": SocketAddressPrinter}.get(name, lambda _: None)(value)


printer_of.name = "weir"
gdb.pretty_printers = [known for known in gdb.pretty_printers if getattr(known, "name", "") != "weir"] + [printer_of]
for command in (Weir, Tasks, Connections, Loops, Events):
    command()
