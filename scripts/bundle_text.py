#!/usr/bin/env python3
"""Make the text that ships with the demo model.

    python3 scripts/bundle_text.py SOURCE models/demo

SOURCE holds `<set>/{train,valid}.txt`: UTF-8 documents, already shuffled,
separated by a line `<|endoftext|>`, for the sets stories, textbook, python,
math, instruct and dialog. Writes `calibration/` from the train files and
`held-out/` from the valid files, one file per domain. The same input always
gives the same bytes. Only documents whose origin is known are taken; NOTICE
names origins and licences.

Standard library only.
"""

import argparse
import json
import re
from itertools import zip_longest
from pathlib import Path

SEPARATOR = "<|endoftext|>"

# Bytes per domain.
BUDGET = {"calibration": 250_000, "held-out": 80_000}
SPLIT = {"calibration": "train", "held-out": "valid"}

# Longest piece of one document, in characters, so that a domain is many
# documents. Longer ones are cut at a blank line.
LONGEST = {"textbook": 6_000, "python": 8_000}

# Shorter ones are chapter openings and review questions.
SHORTEST_TEXTBOOK = 3_000

# What only a file of that project contains. The first that matches decides.
PROJECTS = {
    "Hypothesis": r"\A# This file is part of Hypothesis",
    "Pallets": r"^\s*(?:from|import) (?:werkzeug|flask)\b",
    "pip": r"^\s*(?:from|import) pip\._internal\b",
    "NetworkX": r"^import networkx as nx$",
    "Tornado": r"^\s*(?:from|import) tornado\b",
    "SQLAlchemy": r"part of SQLAlchemy and is released under"
    r"|^from sqlalchemy(?:\.testing| import testing)\b",
}

# The instruction set mixes sources; questions and short tasks are Dolly's,
# the rest is role play of another origin.
DOLLY = re.compile(
    r"User: (?:What|Who|When|Where|Why|How|Which|Is|Are|Can|Does|Did|Do|Give me|Tell me"
    r"|Name|List (?:the|some|all|down)|Identify|Classify|Categorize|Extract|Given|From the|Based on|Summarize) "
)

# Prompts that quote a long passage are more reading than chatting.
LONGEST_CHAT = 2_500

TURN = re.compile(r"(?m)^(User|Assistant): ?")


def read(path):
    """Documents of a file, in order."""
    text = path.read_text(encoding="utf-8")
    documents = re.split(rf"(?m)^{re.escape(SEPARATOR)}$", text)
    return [d.strip() for d in documents if d.strip()]


def cut(document, longest):
    """The part of a document up to the last blank line before `longest`."""
    if len(document) <= longest:
        return document
    return document[: document.rindex("\n\n", 0, longest)].rstrip()


def textbook(documents):
    """Sections of textbooks, long ones cut."""
    return [cut(d, LONGEST["textbook"]) for d in documents if len(d) >= SHORTEST_TEXTBOOK]


def project(document):
    """Name of the project a Python file belongs to, or None."""
    for name, pattern in PROJECTS.items():
        if re.search(pattern, document, re.MULTILINE):
            return name
    return None


def python(documents):
    """Files of the known projects, taken in turn from each."""
    of_project = {name: [] for name in PROJECTS}
    for document in documents:
        if (name := project(document)) is not None:
            of_project[name].append(cut(document, LONGEST["python"]))
    return [d for turn in zip_longest(*of_project.values()) for d in turn if d]


def chat(document, source):
    """One JSON line of a transcript, or None if its turns do not alternate."""
    parts = TURN.split(document)
    roles, contents = parts[1::2], [c.strip() for c in parts[2::2]]
    alternate = all(r == ("User", "Assistant")[i % 2] for i, r in enumerate(roles))
    if parts[0] or not alternate or len(roles) % 2 or not all(contents):
        return None
    messages = [{"role": r.lower(), "content": c} for r, c in zip(roles, contents)]
    return json.dumps({"source": source, "messages": messages}, ensure_ascii=False)


def chats(instruct, dialog):
    """Three instructions for every dialogue, which is about three times as long."""
    asked = [d for d in instruct if DOLLY.match(d) and len(d) <= LONGEST_CHAT]
    asked = filter(None, (chat(d, "databricks-dolly-15k") for d in asked))
    talked = filter(None, (chat(d, "schema-guided-dialogue") for d in dialog))
    groups = zip_longest(asked, asked, asked, talked)
    return [line for group in groups for line in group if line]


def first(documents, budget, joint):
    """The longest prefix that fits in `budget` bytes with `joint` after each."""
    taken, size = [], 0
    for document in documents:
        size += len((document + joint).encode("utf-8"))
        if size > budget:
            break
        taken.append(document)
    return taken


def bundle(source, out):
    """Write both folders."""
    for folder, split in SPLIT.items():
        sets = {
            name: read(source / name / f"{split}.txt")
            for name in ("stories", "textbook", "python", "math", "instruct", "dialog")
        }
        domains = {
            "stories.txt": sets["stories"],
            "textbook.txt": textbook(sets["textbook"]),
            "python.txt": python(sets["python"]),
            "math.txt": sets["math"],
            "chat.jsonl": chats(sets["instruct"], sets["dialog"]),
        }
        (out / folder).mkdir(parents=True, exist_ok=True)
        for name, documents in domains.items():
            joint = "\n" if name.endswith(".jsonl") else f"\n{SEPARATOR}\n"
            taken = first(documents, BUDGET[folder], joint)
            text = "".join(d + joint for d in taken)
            path = out / folder / name
            path.write_text(text, encoding="utf-8", newline="\n")
            print(f"{path}  {len(taken)} documents, {len(text.encode('utf-8'))} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path, help="folder with <set>/{train,valid}.txt")
    parser.add_argument("out", type=Path, help="folder to write calibration/ and held-out/ in")
    args = parser.parse_args()
    bundle(args.source, args.out)


if __name__ == "__main__":
    main()
