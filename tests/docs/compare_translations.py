#!/usr/bin/env python3
"""Fails if a translation of a Markdown file is out of step with its original.

usage: compare_translations.py TRANSLATION...

The original of guide.zh.md is guide.md, beside it. Both must have headings of the same number and
levels. In each section: the same code blocks, apart from comments, so that those of the original are
compiled for both; paragraphs, items of lists and rows of tables in the same order, with the same words
in backquotes and the same numbers in each; links to the same places. A link leads to the translation of a page
that has one, and to the heading there that stands where the original's does. Each links the other.
"""

import collections
import pathlib
import re
import sys

from check_links import CODE, FENCE, anchors_of

HEADING = re.compile(r"^(#+) +(.*)$")
LINK = re.compile(r"\]\(([^)\s]+)\)")
NUMBER = re.compile(r"\d+(?:[.,:']\d+)*")
MARK = re.compile(r"^FENCE (\d+)$")
# What begins a comment in a string is none: strings are matched first.
STRING = r'(?P<string>"(?:[^"\\\n]|\\.)*")'
COMMENTS = {"cpp": re.compile(STRING + r"|//[^\n]*|/\*.*?\*/", re.DOTALL),
            "": re.compile(STRING + r"|(?<!\S)#[^\n]*")}


def without_comments(block):
    """The lines of a fenced block that hold anything else, its language first."""
    language = block[3:block.index("\n")].strip()
    pattern = COMMENTS.get(language, COMMENTS[""])
    code = pattern.sub(lambda match: match["string"] or "", block)
    return [line.rstrip() for line in code.splitlines() if line.strip()]


def words_in(text):
    return collections.Counter(set(CODE.findall(text)))


def numbers_in(text):
    return collections.Counter(NUMBER.findall(LINK.sub("]", CODE.sub("", text))))


class Section:
    def __init__(self, level, title):
        self.level, self.title = level, title
        self.lines = []
        self.blocks = []

    def parts(self):
        """Kind and text of each: paragraphs, items, rows, the blocks' places."""
        found, before = [], ""
        for line in self.lines:
            if MARK.match(line):
                kind = "code block"
            elif line.startswith("|"):
                kind = f"row of {line.count('|') - 1}"
            elif line.startswith("- "):
                kind = "item"
            elif line.strip() and line.startswith(" ") and before == "item":
                kind = "item, going on"
            else:
                kind = "paragraph" if line.strip() else ""
            if kind == "item, going on" or kind == before == "paragraph":
                found[-1][1] += "\n" + line
            elif kind:
                found.append([kind, line])
            before = kind.removesuffix(", going on")
        return found

    def prose(self):
        return "\n".join(line for line in self.lines if not MARK.match(line))


class Document:
    def __init__(self, path):
        self.path = path
        self.sections = [Section(0, "the head")]
        blocks = []

        def keep(match):
            blocks.append(match[0])
            return f"FENCE {len(blocks) - 1}"

        for line in FENCE.sub(keep, path.read_text(encoding="utf-8")).splitlines():
            if heading := HEADING.match(line):
                self.sections.append(Section(len(heading[1]), heading[2]))
                continue
            self.sections[-1].lines.append(line)
            if mark := MARK.match(line):
                self.sections[-1].blocks.append(blocks[int(mark[1])])

    def links(self, section):
        """File and anchor of each."""
        for link in LINK.findall(CODE.sub("", section.prose())):
            if "://" in link:
                yield link, ""
                continue
            name, _, anchor = link.partition("#")
            yield (self.path.parent / name).resolve() if name else self.path, anchor


def original_of(path):
    return path.with_name(path.name.removesuffix(".zh.md") + ".md")


def translation_of(path):
    return path.with_name(path.name.removesuffix(".md") + ".zh.md")


def place(target, anchor):
    """One that is the same for a page and its translation."""
    if isinstance(target, str):
        return target
    if target.name.endswith(".zh.md"):
        original = original_of(target)
    elif target.suffix == ".md" and translation_of(target).exists():
        original = target
    else:
        return f"{target}#{anchor}" if anchor else str(target)
    if not anchor:
        return str(original)
    headings = list(anchors_of(target)) if target.exists() else []
    number = headings.index(anchor) + 1 if anchor in headings else f"that is not there, {anchor}"
    return f"{original}, heading {number}"


def compare_parts(mine, theirs):
    kinds = [[kind for kind, _ in section.parts()] for section in (mine, theirs)]
    if kinds[0] != kinds[1]:
        yield f"it consists of: {'; '.join(kinds[0])}\nand: {'; '.join(kinds[1])}"
        return
    for (kind, text), (_, other) in zip(mine.parts(), theirs.parts()):
        if kind == "code block":
            continue
        for what, found_in in (("the words", words_in), ("the number", numbers_in)):
            one, another = found_in(text), found_in(other)
            for owner, extra in (("original", one - another), ("translation", another - one)):
                for found in extra:
                    yield f"only the {owner} has {what} {found}, in:\n{text}\n{other}"


def compare_sections(original, translation, mine, theirs):
    if mine.level != theirs.level:
        yield f"a heading of level {mine.level}, and of {theirs.level}"
    yield from compare_parts(mine, theirs)
    for block, other in zip(mine.blocks, theirs.blocks):
        if without_comments(block) != without_comments(other):
            yield f"a code block differs:\n{block}\n{other}"
    to_each_other = {original.path, translation.path}
    places = []
    for document, section in ((original, mine), (translation, theirs)):
        places.append(collections.Counter(
            place(*link) for link in document.links(section)
            if link[1] or link[0] not in to_each_other))
    for link in sorted((places[0] - places[1]).keys() | (places[1] - places[0]).keys()):
        yield f"linked {places[0][link]} times, and {places[1][link]} times: {link}"
    for target, anchor in translation.links(theirs):
        if (isinstance(target, pathlib.Path) and target.suffix == ".md"
                and (anchor or target != original.path) and translation_of(target).exists()):
            yield f"it links {target.name}, of which there is a translation"


def differences(original, translation):
    if len(original.sections) != len(translation.sections):
        yield f"{len(original.sections) - 1} headings, and {len(translation.sections) - 1}"
    for one, other in ((original, translation), (translation, original)):
        if all((other.path, "") not in one.links(section) for section in one.sections):
            yield f"{one.path.name} has no link to {other.path.name}"
    for mine, theirs in zip(original.sections, translation.sections):
        for difference in compare_sections(original, translation, mine, theirs):
            yield f'"{mine.title}", "{theirs.title}": {difference}'


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    failed = False
    for name in sys.argv[1:]:
        path = pathlib.Path(name).resolve()
        if not path.name.endswith(".zh.md") or not original_of(path).exists():
            sys.exit(f"{name} is no translation")
        original, translation = Document(original_of(path)), Document(path)
        for difference in differences(original, translation):
            print(f"{original.path.name}, {path.name}: {difference}")
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
