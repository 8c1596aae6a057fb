"""Calls that could run code from a file, or give a secret away, are not in the package."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import hms_ray

PACKAGE = Path(hms_ray.__file__).parent
UNPICKLING = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
REFUSED = {"eval", "exec", "compile", "read_pickle", "os.system", "os.popen"}
REQUIRED = {"torch.load": ("weights_only", True)}
FORBIDDEN = {"np.load": "allow_pickle", "numpy.load": "allow_pickle"}


def faults(source: str) -> Iterator[str]:
    """Unsafe imports and calls of a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            for name in [module] if module else [alias.name for alias in node.names]:
                if name.split(".")[0] in UNPICKLING:
                    yield f"line {node.lineno}: import {name}"
        if isinstance(node, ast.Call) and (fault := fault_of(node)):
            yield f"line {node.lineno}: {fault}"


def fault_of(call: ast.Call) -> str | None:
    name = ast.unparse(call.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if name in REFUSED or name.rpartition(".")[2] == "read_pickle" or given.get("shell") == "True":
        return name
    if name in REQUIRED:
        argument, value = REQUIRED[name]
        return None if given.get(argument) == str(value) else f"{name} without {argument}={value}"
    if name in FORBIDDEN and FORBIDDEN[name] in given:
        return f"{name} with {FORBIDDEN[name]}"
    if name == "yaml.load" and "Loader" not in given and len(call.args) < 2:
        return "yaml.load without a loader"
    if name in ("yaml.unsafe_load", "yaml.full_load"):
        return name
    return None


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from cloudpickle import loads",
        "torch.load(file)",
        "torch.load(file, weights_only=False)",
        "np.load(file, allow_pickle=True)",
        "pd.read_pickle(file)",
        "yaml.load(text)",
        "yaml.unsafe_load(text)",
        "subprocess.run(text, shell=True)",
        "eval(text)",
    ],
)
def test_unsafe_code_is_found(source: str) -> None:
    assert list(faults(source))


@pytest.mark.parametrize(
    "source",
    [
        "import json",
        "torch.load(file, weights_only=True)",
        "np.load(file, mmap_mode='r')",
        "yaml.load(text, Loader=StrictLoader)",
        "re.compile(text)",
        "subprocess.run([text])",
    ],
)
def test_safe_code_is_not(source: str) -> None:
    assert list(faults(source)) == []


def test_the_package_unpickles_and_evaluates_nothing() -> None:
    found = {
        str(file.relative_to(PACKAGE)): list(faults(file.read_text(encoding="utf-8")))
        for file in PACKAGE.rglob("*.py")
    }
    assert len(found) > 200
    assert {name: texts for name, texts in found.items() if texts} == {}
