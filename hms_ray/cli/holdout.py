"""The command holdout: a study's choices, scored on held-out patients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from hms_ray.cli.next_command import print_next
from hms_ray.cli.options import RESULTS, Device, Json, Results, Threads, TrustCode, option


def holdout(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="Study, or path of its folder.")],
    data: Annotated[
        Path | None,
        option("Competition folder.", "DIR", default="that of the study"),
    ] = None,
    results: Results = RESULTS,
    pack_dir: Annotated[
        Path | None, option("Folder of packs.", "DIR", default="that of the study")
    ] = None,
    device: Device = None,
    threads: Threads = 1,
    trust_code: TrustCode = False,
    as_json: Json = False,
) -> None:
    """Score a study's best trial and its blend on held-out patients.

    Needs data.holdout in the study. The study records each opening: the scores
    test only choices that were made before the first one.
    """
    from hms_ray.blend.holdout import HoldoutOptions, open_holdout
    from hms_ray.display.holdout_table import render_holdout
    from hms_ray.storage.folder_names import require_inside
    from hms_ray.study.folder import StudyFolder

    folder = StudyFolder.open(study, results)
    # Each opening is recorded there.
    require_inside(folder.path, results)
    report = open_holdout(
        folder,
        HoldoutOptions(
            results=results,
            data_dir=data,
            pack_dir=pack_dir,
            device=device,
            threads=threads,
            trust_code=trust_code,
        ),
    )
    if as_json:
        print(json.dumps(report.to_json(), indent=1))
        return
    print(render_holdout(report))
    blend = folder.path / "blend" if len(report.scores) > 1 else study
    print_next("submit", blend, "--data", data or "DIR", results=results)
