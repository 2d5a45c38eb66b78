#!/usr/bin/env python3
"""Holds what weir/weir.h, weir/sim.h and weir/tls.h put into the namespaces of users to a list.

Usage: names.py INCLUDE_DIR LIST COMPILER...

The compiler only reads the headers (-E); which names are declared, a small parser says. A line of the list is
`namespace name`. Names of operators, members, specialisations and macros are none; nor are those of namespaces
called detail.
"""

import pathlib
import re
import subprocess
import sys

TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])+\'|[A-Za-z_]\w*|\d[\w\']*(?:\.\w+)?|::|->|\S')
WORD = re.compile(r"[A-Za-z_]")
SPECIFIERS = {"inline", "constexpr", "consteval", "constinit", "static", "extern", "friend", "thread_local",
              "typedef", "const"}
HEADERS = ["weir/weir.h", "weir/sim.h", "weir/tls.h"]


def lines_of_weir(include, compiler):
    """What is read of weir's own headers, with the header that each line is from."""
    text = "".join(f"#include <{header}>\n" for header in HEADERS)
    read = subprocess.run([*compiler, "-std=c++20", "-E", f"-I{include}", "-x", "c++", "-"], input=text,
                          capture_output=True, text=True, check=True).stdout
    header = None
    for line in read.splitlines():
        mark = re.match(r'# \d+ "([^"]*)"', line)
        if mark:
            header = mark[1].removeprefix(f"{include}/") if mark[1].startswith(str(include)) else None
        elif header:
            yield header, line


class Parser:
    """Walks through namespaces, and takes each declaration for the tokens outside of its brackets."""

    def __init__(self, lines):
        self.tokens = [(header, token) for header, line in lines for token in TOKEN.findall(line)]
        self.at = 0
        self.names = {}  # (namespace, name): header

    def token(self, ahead=0):
        index = self.at + ahead
        return self.tokens[index][1] if index < len(self.tokens) else ""

    def skip(self, opening, closing):
        depth = 0
        while True:
            token = self.token()
            depth += (token == opening) - (token == closing)
            self.at += 1
            if depth == 0:
                return

    def skip_angles(self):
        depth = 0
        while True:
            token = self.token()
            if token in "({" and token:
                self.skip(token, ")" if token == "(" else "}")
                continue
            depth += (token == "<") - (token == ">")
            self.at += 1
            if depth == 0:
                return

    def namespace(self, path):
        while self.at < len(self.tokens):
            if self.token() == "}":
                self.at += 1
                return
            if self.token() == ";":
                self.at += 1
            elif self.token() == "namespace" or (self.token(), self.token(1)) == ("inline", "namespace"):
                self.at += 2 if self.token() == "inline" else 1
                name = []
                while self.token() not in ("{", ";", "="):
                    name += [self.token()] if WORD.match(self.token()) else []
                    self.at += 1
                if self.token() == "{":
                    self.at += 1
                    self.namespace(path + name)
                else:
                    while self.token() != ";":
                        self.at += 1
            else:
                self.declaration(path)

    def declaration(self, path):
        header = self.tokens[self.at][0]
        flat = []
        while True:
            token = self.token()
            if token == ";":
                self.at += 1
                break
            if token == "{":
                self.skip("{", "}")
                flat.append("{}")
                if is_function(flat):
                    break
            elif token == "(":
                self.skip("(", ")")
                flat.append("()")
            elif token == "[":
                self.skip("[", "]")
            elif token == "<" and flat and WORD.match(flat[-1]) and flat[-1] != "operator":
                self.skip_angles()
                flat.append("<>")
            else:
                flat.append(token)
                self.at += 1
        if "detail" not in path and (name := name_of(flat)):
            self.names.setdefault(("::".join(path), name), header)


def without_specifiers(flat):
    plain = []
    at = 0
    while at < len(flat):
        if flat[at:at + 2] == ["template", "<>"] or \
                (flat[at] in ("alignas", "__attribute__", "noexcept", "explicit") and flat[at + 1:at + 2] == ["()"]):
            at += 2
        elif flat[at] in SPECIFIERS and not (plain and plain[-1] in ("class", "struct", "enum")):
            at += 1
        elif flat[at] == "requires" and not plain and flat[at + 1:at + 2] == ["()"]:
            at += 2
        else:
            plain.append(flat[at])
            at += 1
    return plain


def is_function(flat):
    plain = without_specifiers(flat)
    if plain[:1] and plain[0] in ("class", "struct", "union", "enum"):
        return False
    return "()" in plain and "=" not in plain[:plain.index("()")]


def name_of(flat):
    plain = without_specifiers(flat)
    if not plain or plain[0] == "static_assert":
        return None
    if plain[0] == "using":
        return None if plain[1] == "namespace" else plain[1] if "=" in plain else plain[-1]
    if plain[0] == "concept":
        return plain[1]
    if plain[0] in ("class", "struct", "union", "enum"):
        rest = [token for token in plain[1:] if token not in ("class", "struct", "final", "()")]
        if rest[1:2] in (["<>"], ["::"]):  # a specialisation, a member's definition
            return None
        if plain[-1] == "{}" or ":" in plain or len(rest) == 1:
            return rest[0]
    if "()" in plain:
        end = plain.index("()")
        if "operator" in plain[:end + 2]:
            return None
        end -= plain[end - 1] == "<>"
        if plain[end - 2:end - 1] == ["::"] or not WORD.match(plain[end - 1]):
            return None
        return plain[end - 1]
    words = []
    for token in plain:
        if token in ("=", "{}"):
            break
        words += [token] if WORD.match(token) else []
    return words[-1] if words else None


def main(include, listed, compiler):
    try:
        parser = Parser(lines_of_weir(include, compiler))
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"skipped: {compiler[0]} does not read the headers by itself: {error}")
        return 0
    parser.namespace([])
    wanted = {tuple(line.split()) for line in listed.read_text(encoding="utf-8").splitlines()}
    for key in sorted(parser.names.keys() - wanted):
        print(f"not in the list: {' '.join(key)} ({parser.names[key]})")
    for key in sorted(wanted - parser.names.keys()):
        print(f"in the list, and nowhere else: {' '.join(key)}")
    print(f"{len(parser.names)} names")
    return parser.names.keys() != wanted


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3:]))
