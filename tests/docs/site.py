#!/usr/bin/env python3
"""The site that ./dev docs makes: guide, index and reference, with search; every link leads somewhere.

site.py SOURCE_DIRECTORY

Built into a directory of its own by Doxygen, then looked at: each link of each page to a page or a place
in one must be there, the search must know the names that a user looks for, and the first page, in a real
browser, must be a picture of something.
"""

import html.parser
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "support"))
from picture import picture

SOURCE = pathlib.Path(sys.argv[1])
# Places that Doxygen 1.9 names itself, and forgets to make: of friends, and of nested classes that it leaves out.
OWN = re.compile(r"a[0-9a-f]{32,}|nested-classes")
SEARCHED = ["TcpServer", "TcpConnection", "when_any", "stream_pair", "BlockingPool", "TlsContext"]


class Page(html.parser.HTMLParser):
    """The places of a page, and where its links lead."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.places = set()
        self.links = []
        self.pieces = []
        self.feed(text)

    @property
    def text(self):
        return " ".join("".join(self.pieces).split())

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("id", "name") and value:
                self.places.add(value)
            if name in ("href", "src") and value and tag in ("a", "img", "script", "link"):
                self.links.append(value)

    def handle_data(self, data):
        self.pieces.append(data)


def make(site):
    done = subprocess.run([sys.executable, "-B", SOURCE / "docs/site.py", site], text=True, capture_output=True,
                          timeout=300, check=False)
    if done.returncode != 0:
        sys.exit(f"FAILED: docs/site.py\n{done.stdout}{done.stderr}")


def broken_links(root):
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in root.glob("*.html")}
    for path, page in pages.items():
        for link in page.links:
            target, _, place = link.partition("#")
            if ":" in target or link.startswith(("javascript", "//")):
                continue
            to = root / urllib.parse.unquote(target) if target else path
            if not to.exists():
                yield f"{path.name}: {link} leads to no file"
            elif place and not OWN.fullmatch(place) and to in pages and urllib.parse.unquote(place) not in pages[to].places:
                yield f"{path.name}: {link} leads to no place in it"


def look(browser, root, where):
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
               f"--user-data-dir={where}/profile"]
    page = f"file://{root}/index.html"
    shown = subprocess.run(command + ["--dump-dom", page], capture_output=True, text=True, timeout=120, check=False)
    if shown.returncode != 0 or "<html" not in shown.stdout:
        print("skipped: chromium does not run here: " + shown.stderr.strip().rpartition("\n")[2])
        return
    text = Page(shown.stdout).text
    for wanted in ("weir", "co_await conn.read()"):
        if wanted not in text:
            sys.exit(f"FAILED: the first page shows no {wanted}")
    subprocess.run(command + [f"--screenshot={where}/page.png", "--window-size=1200,900", page],
                   capture_output=True, timeout=120, check=False)
    width, height, different = picture(pathlib.Path(where) / "page.png")
    if (width, height) != (1200, 900) or different <= 16:
        sys.exit(f"FAILED: the first page is {width} x {height} with {different} colours or so")
    print("passed: the first page in a browser")


def main():
    if shutil.which("doxygen") is None:
        print("skipped: doxygen is not here")
        return
    with tempfile.TemporaryDirectory() as where:
        site = pathlib.Path(where) / "site"
        make(site)
        root = site / "html"
        broken = sorted(set(broken_links(root)))
        if broken:
            sys.exit("FAILED:\n" + "\n".join(broken[:40]) + f"\n{len(broken)} links")
        print("passed: every link of the site leads somewhere")
        known = "".join(path.read_text(encoding="utf-8") for path in (root / "search").glob("*.js"))
        missing = [name for name in SEARCHED if f"'{name}'" not in known]
        if missing:
            sys.exit(f"FAILED: the search does not know {missing}")
        print("passed: the search knows the names of the reference")
        browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if browser is None:
            print("skipped: chromium is not here")
        else:
            look(browser, root, where)


main()
