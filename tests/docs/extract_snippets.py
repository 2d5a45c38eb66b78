#!/usr/bin/env python3
"""Writes the C++ code blocks of Markdown files into one source each, so that a build compiles them.

usage: extract_snippets.py OUTPUT_DIRECTORY ROOT FILE...
       extract_snippets.py --program SOURCE FILE

Every block fenced as ```cpp must stand at namespace level. Each is put into a namespace of its own;
its include directives go to the top. That of ROOT/docs/guide.md is docs_guide.cpp. The second form
writes the first block, which is a program, as it stands.
"""

import pathlib
import re
import sys

PRELUDE = """\
#include <weir/weir.h>

#include <string>
#include <vector>
"""


def blocks_of(text):
    """Line number and code of each block."""
    for match in re.finditer(r"^```cpp\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield text.count("\n", 0, match.start()) + 2, match[1]


def source_of(path, text):
    includes, body = [], []
    for line, code in blocks_of(text):
        kept = []
        for row in code.splitlines():
            if row.startswith("#include"):
                includes.append(row)
                kept.append("")
            else:
                row = row.replace("int main() try", "int example_main() try")
                kept.append(row.replace("int main()", "void example_main()"))
        code = "\n".join(kept)
        if "int example_main()" in code:  # only main itself may end without a return
            code = ('#pragma GCC diagnostic push\n#pragma GCC diagnostic ignored "-Wreturn-type"\n'
                    f"{code}\n#pragma GCC diagnostic pop")
        body.append(f"// {path.name}, line {line}\nnamespace block_at_line_{line} {{\n"
                    f"using namespace weir;\nusing namespace std::chrono_literals;\n{code}\n}}\n")
    return PRELUDE + "\n".join(dict.fromkeys(includes)) + "\n\n" + "\n".join(body)


def main():
    if sys.argv[1] == "--program":
        target, path = map(pathlib.Path, sys.argv[2:])
        _, code = next(blocks_of(path.read_text(encoding="utf-8")))
        target.write_text(code, encoding="utf-8")
        return
    output, root = map(pathlib.Path, sys.argv[1:3])
    output.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[3:]:
        path = pathlib.Path(name)
        stem = str(path.relative_to(root).with_suffix(""))
        target = output / (stem.replace("/", "_").replace(".", "_") + ".cpp")
        target.write_text(source_of(path, path.read_text(encoding="utf-8")), encoding="utf-8")


main()
