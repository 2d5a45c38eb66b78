#!/usr/bin/env python3
"""Fails if a document links or cites what is not there.

usage: check_links.py ROOT

In the Markdown files of the tree: the file of each relative link, the heading of each anchor (as
GitHub names it), and each test that is cited as `net/sender`, "name of the case".
"""

import functools
import pathlib
import re
import sys

FENCE = re.compile(r"^```[^\n]*\n.*?^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
CASE = re.compile(r'`([a-z]+/\w+)`,\s+"([^"]+)"')
NAME = re.compile(r'TEST_CASE\w*\(\s*((?:"(?:[^"\\]|\\.)*"\s*)+)')
PART = re.compile(r'"((?:[^"\\]|\\.)*)"')


def without_code(text):
    """With the lines where they are."""
    return FENCE.sub(lambda block: "\n" * block[0].count("\n"), text)


@functools.cache
def anchors_of(path):
    """In the order of the headings."""
    anchors = {}
    for title in HEADING.findall(without_code(path.read_text(encoding="utf-8"))):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")
        number = 0
        while (anchor := f"{slug}-{number}" if number else slug) in anchors:
            number += 1
        anchors[anchor] = title
    return anchors


@functools.cache
def cases_of(path):
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return {"".join(PART.findall(name)) for name in NAME.findall(text)}


def findings_in(root, path):
    text = without_code(path.read_text(encoding="utf-8"))
    blank = CODE.sub(lambda code: " " * len(code[0]), text)  # no links there
    for match in LINK.finditer(blank):
        link, _, anchor = match[1].partition("#")
        line = text.count("\n", 0, match.start()) + 1
        if "://" in link or link.startswith("mailto:"):
            continue
        target = (path.parent / link).resolve() if link else path
        if not target.exists():
            yield f"{line}: {link} is not there"
        elif anchor and target.suffix == ".md" and anchor not in anchors_of(target):
            yield f"{line}: {link or path.name} has no heading #{anchor}"
    for match in CASE.finditer(text):
        if re.sub(r"\s+", " ", match[2]) not in cases_of(root / "tests" / f"{match[1]}.cpp"):
            yield f'{text.count(chr(10), 0, match.start()) + 1}: {match[1]} has no case "{match[2]}"'


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    files = [path for place in (".", "docs", "bench", "examples", "packaging", "tests/mutants")
             for path in sorted((root / place).glob("*.md"))]
    count = 0
    for path in files:
        for finding in findings_in(root, path):
            print(f"{path.relative_to(root)}:{finding}")
            count += 1
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
