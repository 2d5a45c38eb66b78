#!/usr/bin/env python3
"""Charts of what compare.py has found. Alone: chart.py build/bench/results.json"""

import json
import math
import pathlib
import sys

import report

COLOURS = (("weir", "#1b6ca8"), ("reference", "#7a7a7a"), ("", "#d9a441"))
RATIOS = ("64x64", "1000x64", "64x64x16", "16KiB", "1MiB", "churn")
LATENCIES = ("64x64", "paced", "slow-mix")
FOOTPRINT = (("instructions_per_request", "user-space instructions per request"),
             ("syscalls_per_request", "system calls per request"),
             ("idle_echoed_bytes", "bytes per idle connection"),
             ("compile", "compiler's CPU seconds"),
             ("stripped_kib", "KiB of the stripped program"))


def colour(name):
    return next(colour for prefix, colour in COLOURS if name.startswith(prefix))


def bars(axes, title, values, ranges=None):
    """Horizontal bars with their figures, the smallest at the top."""
    names = sorted(values, key=values.get, reverse=True)
    drawn = axes.barh(names, [values[name] for name in names],
                      color=[colour(name) for name in names])
    if ranges:
        axes.errorbar([values[name] for name in names], names, fmt="none", ecolor="#333333", capsize=2,
                      xerr=[[values[name] - ranges[name][0] for name in names],
                            [ranges[name][1] - values[name] for name in names]])
    axes.bar_label(drawn, [f" {values[name]:.3g}" if values[name] < 100 else f" {values[name]:,.0f}"
                           for name in names], fontsize=7, label_type="edge", padding=8)
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=7)
    axes.margins(x=0.2)
    axes.spines[["top", "right"]].set_visible(False)


def draw_cpu(pyplot, record):
    summary = {name: figures for name, figures in record["summary"].items()
               if len(figures) > 1 and record["workloads"][name].get("group") != "sizes"}
    if not summary:
        return None
    figure, grid = panels(pyplot, len(summary))
    for axes, (workload, figures) in zip(grid, summary.items()):
        shown = {name: found for name, found in figures.items() if name != "A/A"}
        unit = record["workloads"][workload]["unit"]
        costs = {name: [sample["cpu_us_per_request"]
                        for sample in record["samples"][workload][name].values()] for name in shown}
        bars(axes, f"{workload}: CPU µs per {unit}",
             {name: found["cpu_us_per_request"] for name, found in shown.items()},
             {name: (min(cost), max(cost)) for name, cost in costs.items()})
    return figure, "What a request costs the server (median, least and most of the rounds)"


def draw_ratio(pyplot, record):
    found = {name: record["summary"][name] for name in RATIOS
             if len(record["summary"].get(name, ())) > 1}
    if not found:
        return None
    figure, grid = panels(pyplot, len(found))
    for axes, (workload, figures) in zip(grid, found.items()):
        base = record["workloads"][workload]["base"]
        ratios = {name: one.get("ratio", 1.0) for name, one in figures.items() if name != "A/A"}
        bars(axes, f"{workload}: CPU per request / {base}", ratios)
        noise = figures.get("A/A")
        if noise:  # as far as the same program is from itself
            half = abs(noise["ratio"] - 1)
            axes.axvspan(1 - half, 1 + half, color="#c0392b", alpha=0.15, linewidth=0)
        axes.axvline(1, color="#c0392b", linewidth=0.8)
    return figure, ("What a request costs the server, against a server written by hand for it "
                    "(median of pairs, less is better; red: A/A)")


def draw_sizes(pyplot, record):
    """Lines over sizes: a cliff is seen at once."""
    found = report.per_mib(record, "sizes")
    if not found:
        return None
    figure, axes = pyplot.subplots(figsize=(9, 4.5))
    for name, costs in found.items():
        if name != "A/A":
            axes.plot([record["workloads"][workload]["size"] / 1024 for workload in costs], list(costs.values()),
                      marker="o", markersize=3, linewidth=1.2, label=name,
                      linestyle="-" if name.startswith("weir") else "--")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("KiB of a message", fontsize=8)
    axes.set_ylabel("CPU µs per MiB", fontsize=8)
    axes.legend(fontsize=7)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, "What a MiB costs the server, by the size of messages (1 connection, median of the rounds)"


def draw_latency(pyplot, record):
    workloads = [name for name in LATENCIES if record["summary"].get(name)]
    if not workloads:
        return None
    figure, grid = panels(pyplot, 2 * len(workloads))
    panel = iter(grid)
    for workload in workloads:
        for key, text in (("p50_us", "p50"), ("p999_us", "p99.9")):
            bars(next(panel), f"{workload}: {text} µs",
                 {name: found[key] for name, found in record["summary"][workload].items()
                  if name != "A/A"})
    return figure, "Latency (median of the rounds)"


def draw_footprint(pyplot, record):
    found = []
    for key, text in FOOTPRINT:
        values = {name: figures[key][0] if key == "compile" else figures[key]
                  for name, figures in record["footprint"].items()
                  if key in figures and not name.endswith("-tls")}
        if values:
            found.append((text, values))
    if not found:
        return None
    figure, grid = panels(pyplot, len(found))
    for axes, (text, values) in zip(grid, found):
        bars(axes, text, values)
    return figure, "What needs no rounds"


def panels(pyplot, count):
    columns = min(3, count)
    rows = math.ceil(count / columns)
    figure, grid = pyplot.subplots(rows, columns, figsize=(4.6 * columns, 2.6 * rows), squeeze=False)
    panels_ = list(grid.flat)
    for unused in panels_[count:]:
        unused.remove()
    return figure, panels_[:count]


def draw_all(record, directory):
    """Writes the charts; returns a line that says which, or why there are none."""
    try:
        import matplotlib
        matplotlib.use("svg")
        from matplotlib import pyplot
    except ImportError:
        return "charts skipped: python3-matplotlib is not installed"
    matplotlib.rcParams["svg.hashsalt"] = "weir"  # the same results give the same files
    matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text
    machine = record["machine"]
    paths = []
    for name, draw in (("cpu", draw_cpu), ("ratio", draw_ratio), ("latency", draw_latency),
                       ("sizes", draw_sizes), ("footprint", draw_footprint)):
        drawn = draw(pyplot, record)
        if drawn is None:
            continue
        figure, title = drawn
        figure.suptitle(f"{title}\n{machine['date']}, {machine['cpu']}, Linux {machine['kernel']}: "
                        f"{machine['command']}", fontsize=9)
        figure.tight_layout()
        path = directory / f"{name}.svg"
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)
        paths.append(str(path))
    return "charts: " + (", ".join(paths) if paths else "none, there is nothing to draw")


if __name__ == "__main__":
    results = pathlib.Path(sys.argv[1])
    print(draw_all(json.loads(results.read_text()), results.parent))
