#!/usr/bin/env python3
"""Draws a small trace with weir-sim-view and looks at what came out. Usage: view.py WEIR_SIM_VIEW"""

import json
import pathlib
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

EVENTS = [
    {"ph": "M", "name": "process_name", "ts": 0, "pid": 1, "tid": 0, "args": {"name": "server"}},
    {"ph": "M", "name": "process_name", "ts": 0, "pid": 2, "tid": 0, "args": {"name": "<client & co>"}},
    {"ph": "b", "cat": "task", "name": "serve", "id": 1, "ts": 0, "pid": 1, "tid": 0},
    {"ph": "s", "cat": "segment", "name": "data to port 7, 5", "id": 1, "ts": 10.5, "pid": 2, "tid": 0},
    {"ph": "f", "bp": "e", "cat": "segment", "name": "data to port 7, 5", "id": 1, "ts": 200, "pid": 1, "tid": 0},
    {"ph": "i", "s": "t", "cat": "event", "name": "receive gave 3 5", "ts": 200, "pid": 1, "tid": 1},
    {"ph": "i", "s": "p", "cat": "fault", "name": "short receive 0", "ts": 200, "pid": 1, "tid": 1},
    {"ph": "i", "s": "t", "cat": "event", "name": "close 3", "ts": 900000, "pid": 1, "tid": 1},
    {"ph": "e", "cat": "task", "name": "serve", "id": 1, "ts": 950000, "pid": 1, "tid": 0},
]


def drawing_of(view, trace, *arguments):
    subprocess.run([sys.executable, view, trace, *arguments], check=True, stdout=subprocess.DEVNULL)
    page = trace.with_suffix(".html").read_text(encoding="utf-8")
    svg = page[page.index("<svg"):page.index("</svg>") + len("</svg>")]
    return page, xml.etree.ElementTree.fromstring(svg)


def count(drawing, tag, kind):
    return sum(1 for shape in drawing.iter("{http://www.w3.org/2000/svg}" + tag)
               if kind in shape.get("class", "").split())


def expect(wanted, got, what):
    if wanted != got:
        sys.exit(f"{what}: {got}, not {wanted}")


def main():
    view = sys.argv[1]
    with tempfile.TemporaryDirectory() as directory:
        trace = pathlib.Path(directory) / "run.json"
        trace.write_text(json.dumps({"traceEvents": EVENTS}), encoding="utf-8")
        page, drawing = drawing_of(view, trace)
        expect(2, count(drawing, "text", "host"), "hosts")
        expect(1, count(drawing, "path", "segment"), "arrows")
        expect(1, count(drawing, "circle", "fault"), "faults")
        expect(1, count(drawing, "circle", "mark"), "other marks")
        expect(1, count(drawing, "rect", "task"), "tasks")
        expect(1, count(drawing, "line", "pause"), "pauses")
        expect(True, "1 faults in all" in page and "&lt;client &amp; co&gt;" in page, "the text")
        _, drawing = drawing_of(view, trace, "--last", "1")
        expect(0, count(drawing, "path", "segment"), "arrows of the last event")
        trace.write_text("{}", encoding="utf-8")
        failed = subprocess.run([sys.executable, view, trace], check=False, capture_output=True, text=True)
        expect((1, True), (failed.returncode, "weir-sim-view: " in failed.stderr), "what is no trace")


main()
