#!/usr/bin/env python3
"""What compare_translations.py finds and what it lets pass.

usage: translations.py
"""

import pathlib
import subprocess
import sys
import tempfile

ORIGINAL = """\
# Page

[中文](page.zh.md)

`send` waits at 1 MiB: [below](#marks), [other](other.md#first), [far](far.md#away).

- one
- two
  of two lines

```cpp
int seconds = 3;  // how long
auto url = "http://a.example";
```

## Marks

| a | b |
| --- | --- |
| 1 | 2 |

```sh
./run # it
```

The end, at [one](https://a.example).
"""

TRANSLATION = """\
# 页

[English](page.md)

`send` 在 1 MiB 处等待：[下面](#水位)、[其他](other.zh.md#第一)、[远处](far.md#away)。
同一段。

- 一
- 二

```cpp
int seconds = 3;  // 多久
auto url = "http://a.example";
```

## 水位

| 甲 | 乙 |
| --- | --- |
| 1 | 2 |

```sh
./run
```

结束，见[一](https://a.example)。
"""

OTHERS = {"other.md": "# Other\n\n## First\n\n## Second\n",
          "other.zh.md": "# 其他\n\n## 第一\n\n## 第二\n",
          "far.md": "# Far\n\n## Away\n"}

# What is changed in the translation, and what has to be said of it. None: nothing.
CHANGES = [
    ("", "", None),
    ("// 多久", "// 三秒", None),
    ("同一段。\n", "", None),
    ("[English](page.md)", "English", "page.zh.md has no link to page.md"),
    ("## 水位", "### 水位", "a heading of level 2, and of 3"),
    ("## 水位\n", "", "2 headings, and 1"),
    ("结束", "## 结束\n\n结束", "2 headings, and 3"),
    ("seconds = 3", "seconds = 4", "a code block differs"),
    ("http://a.example\"", "http://b.example\"", "a code block differs"),
    ("./run", "./walk", "a code block differs"),
    ("```sh\n./run\n```\n", "", "it consists of"),
    ("- 二\n", "", "it consists of"),
    ("| 1 | 2 |\n", "", "row of 2; row of 2; row of 2"),
    ("结束，", "结束。\n\n", "it consists of"),
    ("`send`", "发送", "only the original has the words `send`"),
    ("结束", "`flush`", "only the translation has the words `flush`"),
    ("1 MiB", "2 MiB", "only the original has the number 1"),
    ("| 1 | 2 |", "| 2 | 2 |", "only the original has the number 1"),
    ("、[远处](far.md#away)", "", "linked 1 times, and 0 times"),
    ("far.md#away", "far.md", "far.md#away"),
    ("other.zh.md#第一", "other.zh.md#第二", "other.md, heading 3"),
    ("other.zh.md#第一", "other.md#first", "it links other.md, of which there is a translation"),
    ("(#水位)", "(#页)", "page.md, heading 1"),
    ("https://a.example)", "https://b.example)", "https://b.example"),
]


def said_of(directory, translation):
    (directory / "page.zh.md").write_text(translation, encoding="utf-8")
    program = pathlib.Path(__file__).with_name("compare_translations.py")
    done = subprocess.run([sys.executable, "-B", program, directory / "page.zh.md"],
                          capture_output=True, encoding="utf-8", check=False)
    if done.stderr or done.returncode != bool(done.stdout):
        sys.exit(f"it ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def main():
    failed = False
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        for page, text in {"page.md": ORIGINAL, **OTHERS}.items():
            (directory / page).write_text(text, encoding="utf-8")
        for old, new, finding in CHANGES:
            if old not in TRANSLATION:
                sys.exit(f"there is no {old} to change")
            said = said_of(directory, TRANSLATION.replace(old, new, 1) if old else TRANSLATION)
            if bool(said) != bool(finding) or (finding or "") not in said:
                print(f"{old!r} changed to {new!r}: {finding!r} was to be said, not:\n{said}")
                failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
