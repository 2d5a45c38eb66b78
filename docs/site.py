#!/usr/bin/env python3
"""One site of guide, index and reference, with search, by Doxygen.

site.py DIRECTORY        makes DIRECTORY/html
site.py --filter FILE    gives a page of ours as Doxygen is to read it

Doxygen knows no anchors of headings, and leaves links to what is no page as they stand: headings get names
here, links to them lead there, and files that are linked are copied beside the pages.
"""

import pathlib
import re
import shutil
import subprocess
import sys

SOURCE = pathlib.Path(__file__).resolve().parents[1]
LINK = re.compile(r"(\]\()([^)\s]+)(\))")


def slug(heading):
    """The anchor that a heading has on the web."""
    text = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def name_of(page, anchor=""):
    path = str(page.relative_to(SOURCE).with_suffix(""))
    return re.sub(r"\W", "-", f"{path}-{anchor}" if anchor else f"page-{path}", flags=re.ASCII) + \
        "".join(f"{ord(c):x}" for c in anchor if not c.isascii())


def link(page, target):
    """Where a link of a page leads in the site."""
    path, _, anchor = target.partition("#")
    if re.match(r"\w+:", target):
        return target
    to = (page.parent / path).resolve() if path else page
    if not to.is_relative_to(SOURCE) or not to.exists():
        return target
    if to.suffix == ".md" and to in pages():
        return "#" + name_of(to, anchor)
    return "files/" + str(to.relative_to(SOURCE))


def pages():
    config = (SOURCE / "docs/Doxyfile").read_text(encoding="utf-8").replace("\\\n", " ")
    inputs = re.search(r"^INPUT\s*=(.*)", config, re.MULTILINE)[1].split()
    found = [path for path in map(SOURCE.joinpath, inputs) if path.suffix == ".md"]
    return found + sorted((SOURCE / "docs").glob("*.md"))


def each_line(page):
    """Line, and whether it is prose."""
    fence = False
    for line in page.read_text(encoding="utf-8").splitlines():
        starts = line.lstrip().startswith("```")
        yield line, not fence and not starts
        fence ^= starts


def filtered(page):
    seen = {}
    first = True
    for line, prose in each_line(page):
        heading = re.match(r"(#+) (.*)", line) if prose else None
        if heading:
            anchor = slug(heading[2])
            count = seen[anchor] = seen.get(anchor, -1) + 1
            anchor = "" if first else anchor + (f"-{count}" if count else "")
            line = f"{heading[1]} {heading[2]} {{#{name_of(page, anchor)}}}"
            first = False
        elif prose:
            line = LINK.sub(lambda match: match[1] + link(page, match[2]) + match[3], line)
        yield line


def linked_files():
    for page in pages():
        for line, prose in each_line(page):
            for match in LINK.finditer(line) if prose else ():
                to = link(page, match[2])
                if to.startswith("files/"):
                    yield to.removeprefix("files/")


def make(directory):
    shutil.rmtree(directory, ignore_errors=True)  # no page of what is gone stays
    directory.mkdir(parents=True)
    settings = [
        "@INCLUDE = docs/Doxyfile",
        f'OUTPUT_DIRECTORY = "{directory}"',
        f'FILTER_PATTERNS = *.md="{sys.executable} docs/site.py --filter"',
    ]
    done = subprocess.run(["doxygen", "-"], cwd=SOURCE, text=True, input="\n".join(settings) + "\n", check=False)
    if done.returncode != 0:
        sys.exit("site.py: Doxygen has warned, or failed")
    for name in sorted(set(linked_files())):
        to = directory / "html/files" / name
        if (SOURCE / name).is_dir():
            shutil.copytree(SOURCE / name, to, dirs_exist_ok=True)
        else:
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(SOURCE / name, to)


def main():
    if sys.argv[1] == "--filter":
        print("\n".join(filtered(pathlib.Path(sys.argv[2]).resolve())))
    else:
        make(pathlib.Path(sys.argv[1]).resolve())


main()
