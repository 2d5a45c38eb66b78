#!/usr/bin/env python3
"""The inspector's page in a real browser: what it makes of it, and a picture.

Usage: page.py WEIR_DOCTOR PROGRAMS_DIR
"""

import html
import json
import os
import re
import shutil
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "support"))
from picture import picture
from planted import DEADLOCK, STARVED, directory, expect, planted, run

DOCTOR, PROGRAMS = (os.path.abspath(argument) for argument in sys.argv[1:3])


def browse(browser, where, *arguments):
    return run(browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
               "--no-first-run", f"--user-data-dir={where}/profile", *arguments)


def main():
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        print("skipped: chromium is not here")
        return
    with directory() as where:
        status, output = browse(browser, where, "--dump-dom", "about:blank")
        if status != 0 or "<html" not in output:
            print("skipped: chromium does not run here: " + output.strip().rpartition("\n")[2])
            return
        with planted(PROGRAMS, "127.0.0.1:0") as process:
            address = json.loads(run(DOCTOR, "--json", process.pid)[1])["inspector"]
            _, page = browse(browser, where, "--dump-dom", f"http://{address}/")
            text = html.unescape(re.sub(r"<[^>]*>", " ", page))
            for wanted in (DEADLOCK, STARVED):
                place, _, reason = wanted.partition(": ")
                expect(re.search(re.escape(place) + r", [\d.]+ s: " + re.escape(reason), text), wanted, text)
            expect(re.search(r'loop \d+ "busy" \(\w+\): STUCK in one turn for ', text), "the stuck loop", text)
            expect(len(re.findall(r"<tr>\s*<td>(?:teller|connection)-127\.0\.0\.1:", page)) == 2, "connections", page)
            browse(browser, where, f"--screenshot={where}/page.png", "--window-size=1200,800", f"http://{address}/")
        width, height, different = picture(where / "page.png")
        expect((width, height) == (1200, 800) and different > 16, f"{width} x {height}, {different} colours or so")


main()
