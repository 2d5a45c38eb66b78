#!/usr/bin/env python3
"""The dashboard for Grafana asks for no metric that /metrics does not have, and for all histograms.

Usage: dashboard.py DASHBOARD PROGRAMS_DIR
"""

import json
import pathlib
import re
import socket
import sys

from planted import directory, expect, planted

DASHBOARD, PROGRAMS = sys.argv[1:3]


def metrics_of(path):
    """The name of each, and its type."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(path))
        peer.sendall(b"GET /metrics HTTP/1.1\r\nConnection: close\r\n\r\n")
        text = b"".join(iter(lambda: peer.recv(65536), b"")).decode()
    return dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.M))


def main():
    with directory() as where, planted(PROGRAMS, inspect=f"unix:{where}/inspector"):
        metrics = metrics_of(where / "inspector")
    expect(len(metrics) > 20, "metrics", metrics)
    dashboard = json.loads(pathlib.Path(DASHBOARD).read_text(encoding="utf-8"))
    panels = dashboard["panels"]
    expect(len({panel["id"] for panel in panels}) == len(panels), "each panel has a number of its own")
    taken = set()
    for panel in panels:
        grid = panel["gridPos"]
        place = {(grid["x"] + x, grid["y"] + y) for x in range(grid["w"]) for y in range(grid["h"])}
        expect(not place & taken and grid["x"] + grid["w"] <= 24, f"{panel['title']} has a place of its own")
        taken |= place

    asked = set()
    for panel in panels:
        for target in panel.get("targets", ()):
            for name in re.findall(r"\bweir_\w+", target["expr"]):
                of = name if name in metrics else re.sub(r"_(bucket|sum|count)$", "", name)
                expect(of in metrics, f"{panel['title']} asks for {name}, which /metrics does not have")
                counted = metrics[of] in ("counter", "histogram")
                rated = re.search(rf"\brate\({name}\{{[^}}]*\}}\[\$__rate_interval\]\)", target["expr"])
                expect(bool(rated) == counted, f"{panel['title']}: a rate of what is counted", target["expr"])
                asked.add(of)
    for variable in dashboard["templating"]["list"]:
        for name in re.findall(r"\bweir_\w+", json.dumps(variable)):
            expect(name in metrics, f"the variable {variable['name']} asks for {name}")
    expect(len(asked) > 20, "the dashboard asks for most of them", asked)
    slow = {name for name, kind in metrics.items() if kind == "histogram"} | {"weir_loop_stalls_total"}
    expect(len(slow) > 3 and slow <= asked, "the dashboard shows all that tells of slowness", slow - asked)


main()
