"""The command store: what the fold store holds, whether it is whole, and how it shrinks."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from hms_ray.cli.next_command import print_next
from hms_ray.cli.options import RESULTS, Json, Results, flag, given_options, option
from hms_ray.errors import ConfigError, StudyError

_FREE = "With --free"


def store(
    context: typer.Context,
    results: Results = RESULTS,
    verify: Annotated[
        bool, flag("--verify", "Read every stored fold and compare it with its checksums.")
    ] = False,
    free: Annotated[
        bool,
        flag(
            "--free",
            "Remove drafts of killed processes and damaged folds, and folds by the options below.",
        ),
    ] = False,
    study: Annotated[
        list[str] | None,
        option(
            "Folds of this study, ladder or blend alone; can be repeated.",
            "NAME",
            default="folds that nothing uses",
            panel=_FREE,
        ),
    ] = None,
    age: Annotated[
        float | None,
        option("Folds that were not used for so many days.", "DAYS", panel=_FREE),
    ] = None,
    size: Annotated[
        float | None,
        option(
            "Folds, the least recently used first, until the store is smaller.",
            "GB",
            panel=_FREE,
        ),
    ] = None,
    force: Annotated[
        bool, flag("--force", "Folds that other studies use, too.", panel=_FREE)
    ] = False,
    dry_run: Annotated[
        bool, flag("--dry-run", "Print what would go; remove nothing.", panel=_FREE)
    ] = False,
    as_json: Json = False,
) -> int:
    """List the fold store by study, verify it, or free space."""
    import time
    from dataclasses import replace

    from hms_ray.display.store_table import (
        entry_record,
        render_freed,
        render_store,
        render_verified,
    )
    from hms_ray.storage.fold_store import FoldStore
    from hms_ray.storage.store_contents import damaged_entries, store_entries
    from hms_ray.storage.store_free import Choice
    from hms_ray.storage.store_free import free as free_store

    if not free:
        for name in given_options(context):
            if name in ("--study", "--age", "--size", "--force", "--dry-run"):
                raise ConfigError(f"{name} needs --free", fix="Add --free and --dry-run to look.")
    if not results.is_dir():
        raise StudyError("the results folder must exist", got=str(results), fix="Check --results.")
    choice = Choice(
        studies=tuple(study or ()),
        age_days=age,
        max_bytes=None if size is None else size * 1e9,
        force=force,
    )
    entries, now = store_entries(results), time.time()
    damaged = damaged_entries(entries) if verify else {}
    texts, content = [], {}
    if verify:
        n_folds = sum(entry.kind == "fold" for entry in entries)
        texts.append(render_verified(n_folds, damaged))
        faulty = [entry for entry in entries if entry.path in damaged]
        content["damaged"] = [entry_record(entry, damaged[entry.path]) for entry in faulty]
    if free:
        freed = free_store(results, replace(choice, damaged=damaged), dry_run=dry_run)
        left = sum(e.n_bytes for e in entries) - sum(entry.n_bytes for entry, _ in freed)
        texts.append(render_freed(freed, left, now, dry_run=dry_run))
        content["freed"] = [entry_record(entry, reason) for entry, reason in freed]
    if not (verify or free):
        texts.append(render_store(entries, FoldStore(results).root, now))
        content["entries"] = [entry_record(entry) for entry in entries]
    if as_json:
        print(json.dumps(content, indent=1))
    else:
        print("\n\n".join(texts))
        if not free and entries:
            words = ["--verify", "--free"] if damaged else ["--free", "--age", 30, "--dry-run"]
            print_next("store", *words, results=results)
        if dry_run and freed:
            words = ["--verify"] if verify else []
            words += ["--free", *(word for name in study or () for word in ("--study", name))]
            words += [] if age is None else ["--age", f"{age:g}"]
            words += [] if size is None else ["--size", f"{size:g}"]
            print_next("store", *words, *(["--force"] if force else []), results=results)
    return 1 if damaged and not free else 0
