#!/usr/bin/env python3
"""Makes of several test files one to compile: what they share is then read and instantiated once.

    together.py OUTPUT SOURCE...

Each source stands in a namespace of its own, for names that another one uses too; so all that they
include comes first, and when they include it again there is nothing left of it.
"""
import os
import re
import sys


def included(source):
    """The headers that the file includes, each as an #include line that is right anywhere."""
    with open(source, encoding="utf-8") as file:
        for line in file:
            if found := re.match(r'\s*#\s*include\s+([<"])([^>"]+)[>"]', line):
                name = found[2]
                if found[1] == "<":
                    yield f"#include <{name}>"
                else:
                    yield f'#include "{os.path.normpath(os.path.join(os.path.dirname(source), name))}"'


def main():
    output, *sources = sys.argv[1:]
    headers = dict.fromkeys(line for source in sources for line in included(source))
    text = "\n".join(headers) + "\n"
    for number, source in enumerate(sources):
        text += f'\nnamespace file_{number} {{\n#include "{source}"\n}}\n'
    os.makedirs(os.path.dirname(output), exist_ok=True)
    with open(output, "w", encoding="utf-8") as file:
        file.write(text)


main()
