#!/usr/bin/env python3
"""Fails if docs/debugging.md shows output in words that the library and its tools do not use.

usage: debugging.py SOURCE_DIR

Of each block of output: what tasks wait for, the heads of tables, the names of metrics, and the
words below have to stand in a string literal of the sources. Each of the words has to be on the
page, too.
"""

import pathlib
import re
import sys

PAGE = "docs/debugging.md"
DIRECTORIES = ("core", "io", "net", "coro", "doctor")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LITERAL = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
BETWEEN = re.compile(r'"\s*\n\s*(?:f|R)?"')
# As in "function at file:line, 1.234 s: what for  <  below whom", or "an operand: what for".
WAITS_FOR = re.compile(
    r"(?: at [\w./]+:\d+|an operand)(?:, [\d.]+ s)?: ([^<\[]*?)(?: +[<\[].*| \(spawned by .*)?$")
HEAD = re.compile(r"^(?:\[\w+\] SIGQUIT: )? *(?:#|number|name|tasks|waits) {2}")
METRIC = re.compile(r"\bweir_\w+?(?=_(?:bucket|sum|count|total)\b|\b)")
COUNTER = re.compile(r"weir_loop_(\w+)")

WORDS = (
    "STUCK", " in one turn for ", "the thread ", "waits in ", "runs", "its task awaited last in ",
    "its task was spawned by ",
    " has been in one turn for ", ", in the task that awaited last in ", "stall: ",
    "; whatever blocks or computes there belongs into co_await blocking(…)",
    ": draining, a second signal ends at once", ": drained, ", " forced", " connections finished, ",
    "SIGQUIT: ", "that is all", "loops", "tasks by the place where they wait", "oldest waits",
    "busiest connections", "connected", " began", " resumed", " in ", " opened", " broke: ", ": its last ",
    " events, the newest last", " ago: ", " (spawned by ",
)


def literals_of(root):
    """All strings in the sources, one a line."""
    found = set()
    for directory in DIRECTORIES:
        for path in sorted((root / directory).rglob("*")):
            if path.suffix in (".h", ".cpp", ".py"):
                text = BETWEEN.sub("", path.read_text(encoding="utf-8"))
                found.update(literal.replace('\\"', '"') for literal in LITERAL.findall(text))
    return found


def findings_in(text, literals):
    every = "\n".join(literals)
    shown = "\n".join(block for language, block in BLOCK.findall(text) if not language)
    reasons = [match[1] for line in shown.splitlines() if (match := WAITS_FOR.search(line))]
    if len(reasons) < 20:
        yield f"what {len(reasons)} tasks wait for was found: the page looks different"
    for reason in sorted(set(reasons) - literals):
        yield f'nobody waits for "{reason}"'
    heads = [line for line in shown.splitlines() if HEAD.match(line)]
    if len(heads) < 6:
        yield f"{len(heads)} heads of tables were found: the page looks different"
    for head in heads:
        for column in re.split(r" {2,}", head.strip()):
            if column not in literals and column != "…":
                yield f'no table has a column "{column}"'
    for metric in sorted(set(METRIC.findall(text))):
        of_loop = COUNTER.fullmatch(metric)
        if metric not in every and not (of_loop and of_loop[1] in literals):
            yield f"there is no metric {metric}"
    for words in WORDS:
        if words not in every:
            yield f'the sources do not say "{words}" any more'
        if words not in shown:
            yield f'the page does not show "{words}" any more'


def main():
    root = pathlib.Path(sys.argv[1])
    text = (root / PAGE).read_text(encoding="utf-8")
    findings = list(findings_in(text, literals_of(root)))
    for finding in findings:
        print(f"{PAGE}: {finding}")
    return 1 if findings else 0


sys.exit(main())
