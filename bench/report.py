"""The tables of compare.py."""

import tls

AGAIN = "A/A"
PLURAL = {"request": "requests", "delivery": "deliveries"}


def order(names, base):
    """A/A first, then the base, weir, the others as they came."""
    first = [AGAIN, base, "weir-uring-tls", "weir-epoll-tls", "weir-uring", "weir-epoll"]
    return sorted(names, key=lambda name: first.index(name) if name in first else len(first))


def print_rows(head, rows):
    widths = [max(len(row[i]) for row in [head] + rows) for i in range(len(head))]
    for row in [head] + rows:
        cells = [cell.ljust(width) if i == 0 else cell.rjust(width)
                 for i, (cell, width) in enumerate(zip(row, widths))]
        print("  ".join(cells).rstrip())


def print_noise(record):
    rows = [[workload, f"{figures[AGAIN]['ratio']:.3f}",
             f"{figures[AGAIN]['ratio_min']:.3f} .. {figures[AGAIN]['ratio_max']:.3f}"]
            for workload, figures in record["summary"].items()
            if "ratio" in figures.get(AGAIN, {})]
    if rows:
        print("\nA/A: the same program against itself. What differs by less than this is noise.")
        print_rows(["workload", "median ratio", "min .. max"], rows)


def print_workload(record, workload):
    about = record["workloads"][workload]
    figures = record["summary"][workload]
    if not figures:
        return
    rounds = max((found["rounds"] for found in figures.values()), default=0)
    print(f"\n{workload}: {about['text']}. CPU of the server per {about['unit']}, median of {rounds} "
          f"rounds; ratio to {about['base']} in the same round")
    head = ["server", "CPU us", "ratio", "min .. max", f"{PLURAL[about['unit']]}/s", "p50 us", "p99 us",
            "p99.9 us", "max us", "RSS KiB"]
    rows = []
    for name in order(figures, about["base"]):
        found = figures[name]
        ratio = "ratio" in found and name != about["base"]
        rows.append([name, f"{found['cpu_us_per_request']:.3f}", f"{found['ratio']:.3f}" if ratio else "",
                     f"{found['ratio_min']:.3f} .. {found['ratio_max']:.3f}" if ratio else "",
                     f"{found['requests_per_second']:.0f}",
                     *(f"{found[key]:.1f}" for key in ("p50_us", "p99_us", "p999_us", "max_us")),
                     f"{found['rss_kib']:.0f}"])
    print_rows(head, rows)
    for line in tls.lines(figures, about["depth"]):
        print(line)
    for name, reason in about["without"].items():
        print(f"{name} takes no part: {reason}")


def per_mib(record, group):
    """{server: {workload: CPU in µs for each MiB of messages}}"""
    found = {}
    for workload, about in record["workloads"].items():
        if about.get("group") == group:
            for name, figures in record["summary"][workload].items():
                found.setdefault(name, {})[workload] = figures["cpu_us_per_request"] * (1 << 20) / about["size"]
    return found


def print_groups(record):
    for group in ("sizes", "bulk"):
        found = per_mib(record, group)
        if found:
            names = [name for name, about in record["workloads"].items() if about.get("group") == group]
            print(f"\n{group}: CPU of the server in us per MiB of messages")
            print_rows(["server"] + [name.partition("-")[2] for name in names],
                       [[server] + [f"{found[server][name]:.0f}" if name in found[server] else "-" for name in names]
                        for server in order(found, record["workloads"][names[0]]["base"])])


def print_footprint(record):
    if not record["footprint"]:
        return
    print(f"\nWhat needs no rounds: resident bytes per idle connection ({record['idle_connections']:,} of "
          f"them, {record['idle_tls_connections']:,} with TLS, new and after one echo); at 64x64 system calls and user-space instructions per request; "
          "the compiler's CPU seconds and peak MiB for the echo source; KiB of the stripped program "
          "(shared libraries not counted)")
    head = ["server", "idle B", "echoed B", "syscalls", "instructions", "compile s", "MiB", "KiB"]
    rows = []
    for name, found in record["footprint"].items():
        seconds, mib = found.get("compile", (None, None))
        values = (("{:.0f}", found.get("idle_new_bytes")), ("{:.0f}", found.get("idle_echoed_bytes")),
                  ("{:.3f}", found.get("syscalls_per_request")),
                  ("{:.0f}", found.get("instructions_per_request")), ("{:.2f}", seconds),
                  ("{:.0f}", mib), ("{:.0f}", found.get("stripped_kib")))
        rows.append([name] + ["-" if value is None else form.format(value) for form, value in values])
    print_rows(head, rows)


def print_all(record):
    machine = record["machine"]
    print(f"\n{machine['date']}, {machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, "
          f"{machine['compiler']}, weir {machine['commit']}")
    print(f"{machine['command']}")
    print_noise(record)
    for workload in record["summary"]:
        print_workload(record, workload)
    print_groups(record)
    print_footprint(record)
    for name, reason in record["skipped"].items():
        print(f"skipped: {name}: {reason}")
    for failure in record["failures"]:
        print(f"failed: {failure['server']} at {failure['what']}, {failure['times']} times: {failure['reason']}")
