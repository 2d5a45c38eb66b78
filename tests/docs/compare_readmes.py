#!/usr/bin/env python3
"""Fails if a translation of a Markdown file is out of step with the original.

usage: compare_readmes.py ORIGINAL TRANSLATION

Both must have the same code blocks, byte for byte, and headings of the same number and levels; the
same files linked, each link to a file that is there; and a link to each other.
"""

import pathlib
import re
import sys

FENCE = re.compile(r"^```[^\n]*\n.*?^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^(#+) +(.*)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#]+)[^)]*\)")


class Document:
    def __init__(self, path):
        self.path = path
        text = path.read_text(encoding="utf-8")
        self.blocks = FENCE.findall(text)
        prose = FENCE.sub("", text)
        self.headings = HEADING.findall(prose)
        self.links = [link for link in LINK.findall(prose) if "://" not in link]

    def differences(self, other):
        mine = [(len(marks), title) for marks, title in self.headings]
        theirs = [(len(marks), title) for marks, title in other.headings]
        if len(mine) != len(theirs):
            yield f"{len(mine)} headings and {len(theirs)}"
        for (level, title), (other_level, other_title) in zip(mine, theirs):
            if level != other_level:
                yield f'"{title}" is of level {level}, "{other_title}" of level {other_level}'
        if len(self.blocks) != len(other.blocks):
            yield f"{len(self.blocks)} code blocks and {len(other.blocks)}"
        for number, (block, other_block) in enumerate(zip(self.blocks, other.blocks), start=1):
            if block != other_block:
                yield f"code block {number} differs:\n{block}\n{other_block}"
        shared = [set(d.links) - {self.path.name, other.path.name} for d in (self, other)]
        for link in sorted(shared[0] ^ shared[1]):
            yield f"only one of them links {link}"
        for link in sorted(shared[0] | shared[1]):
            if not (self.path.parent / link).exists():
                yield f"{link} is linked and not there"
        for one, another in ((self, other), (other, self)):
            if another.path.name not in one.links:
                yield f"{one.path.name} has no link to {another.path.name}"


def main():
    original, translation = (Document(pathlib.Path(name)) for name in sys.argv[1:])
    findings = list(original.differences(translation))
    for finding in findings:
        print(f"{original.path.name}, {translation.path.name}: {finding}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
