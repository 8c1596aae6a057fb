"""Launch files as text: comments on top, then YAML made from plain data."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml

from hms_ray.distributed.launch.plan import HEAD_CPUS, HEAD_MEMORY_GIB, Plan
from hms_ray.text import counted

_WIDTH: Final = 96
_HEAD: Final = ["head", "1", str(HEAD_CPUS), f"{HEAD_MEMORY_GIB} GiB", "0", "the study process"]


class _Dumper(yaml.SafeDumper):
    """Indents lists, and writes texts of several lines as they are."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def comment(lines: Sequence[str]) -> str:
    """Lines as comments."""
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def continued(words: Sequence[str], indent: str = "  ") -> list[str]:
    """A shell command on several lines, each option on its own; the last one ends it."""
    lines: list[list[str]] = []
    for word in words:
        if not lines or word.startswith("--"):
            lines.append([])
        lines[-1].append(word)
    texts = [shlex.join(line) for line in lines]
    first, *others = [f"{text} \\" for text in texts[:-1]] + texts[-1:]
    return [first, *(f"{indent}{text}" for text in others)]


def yaml_file(lines: Sequence[str], data: Mapping[str, Any]) -> str:
    """A YAML file: comments on top, then the data in their order."""
    body = yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=_WIDTH, allow_unicode=True)
    return f"{comment(lines)}{body}"


@dataclass(frozen=True)
class Machine:
    """A kind of machine that a cloud lends.

    Attributes:
        name: the cloud's name of the kind.
        cpus: virtual CPUs.
        memory_gib: memory.
    """

    name: str
    cpus: int
    memory_gib: int


def resource_table(
    plan: Plan, *, autoscale: bool, head: bool = True, machine: Machine | None = None
) -> list[str]:
    """What a file asks for, one line per kind of machine.

    Args:
        plan: of the file.
        autoscale: whether machines that train come and go.
        head: whether the head is a machine of its own, which does not train.
        machine: of a cloud; default: just large enough for its workers.
    """
    machine = machine or Machine("worker", plan.cpus_per_machine, plan.memory_gib)
    number = f"0 to {plan.machines}" if autoscale else str(plan.machines)
    trains = f"{plan.groups} folds at once, {counted(plan.workers_per_fold, 'GPU')} each"
    trains += ", spot" if plan.spot else ""
    lines = [
        ["machine", "number", "CPUs", "memory", "GPUs", "runs"],
        *([_HEAD] if head else []),
        [
            *(machine.name, number, str(machine.cpus), f"{machine.memory_gib} GiB"),
            *(str(plan.gpus_per_machine), trains),
        ],
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def storage_lines(plan: Plan, how: str, *, venv: bool = False) -> list[str]:
    """The shared storage that a file needs; ``venv``: whether hms_ray must be there already."""
    lines = [
        f"Shared storage: {plan.storage}, {how}",
        f"  {plan.data}: the competition folder; packs are made in its folder packed",
        f"  {plan.results}: studies and the fold store",
    ]
    if venv:
        lines += [
            f"  {plan.venv}: hms_ray, installed on one machine with",
            f"    python3 -m venv {plan.venv}",
            f"    {plan.venv}/bin/pip install -c constraints.txt '.[cluster]'",
        ]
    return [*lines, f"Test it on every machine: hms-ray check-storage {plan.storage}"]
