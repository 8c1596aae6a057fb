"""The worked examples of launch files in ``cluster/``, and the commands inside them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from hms_ray.distributed.launch.plan import FILES

ROOT = Path(__file__).parents[1]
EXAMPLES = {target: ROOT / name for target, name in FILES.items()}
YAML_EXAMPLES = {target: file for target, file in EXAMPLES.items() if file.suffix == ".yaml"}


def text_of(target: str) -> str:
    return EXAMPLES[target].read_text(encoding="utf-8")


def data_of(target: str) -> Any:
    return yaml.safe_load(text_of(target))


def comments_of(target: str) -> str:
    """The comments on top, as a shell would read them."""
    lines = [line for line in text_of(target).splitlines() if not line.startswith("#!")]
    head = [line for line in lines if line.startswith("#") and not line.startswith("#SBATCH")]
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in head)


def texts_in(data: Any) -> Iterator[str]:
    """All texts of plain data."""
    if isinstance(data, dict):
        for value in data.values():
            yield from texts_in(value)
    elif isinstance(data, list):
        for value in data:
            yield from texts_in(value)
    elif isinstance(data, str):
        yield data


def shell_lines(target: str) -> str:
    """Everything of a file that a shell runs, comments included, one command per line."""
    if target == "slurm":
        body = "\n".join(line for line in text_of(target).splitlines() if line[:1] != "#")
    else:
        body = "\n".join(" ".join(text.split()) for text in texts_in(data_of(target)))
    return re.sub(r"\\\n\s*", " ", f"{comments_of(target)}\n{body}")


def commands_of(target: str, program: str) -> list[list[str]]:
    """Words after a program's name, of every command of a file that starts it."""
    found = []
    for match in re.finditer(rf"(?:^|[\s/\"]){program} (?!-)(.*)", shell_lines(target), re.M):
        text = match[1].split(";")[0].split(" && ")[0].split(" > ")[0].rstrip("& ")
        # The quotes may enclose the program too.
        text = text.removesuffix('"') if text.count('"') % 2 else text
        found.append(shlex.split(text, comments=True))
    return found
