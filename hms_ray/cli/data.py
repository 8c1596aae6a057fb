"""Commands on folders and files: check, simulate, oracle, spectrogram, pack."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer

from hms_ray.cli.next_command import print_next
from hms_ray.cli.options import RESULTS, Json, Results, Settings, flag, option
from hms_ray.errors import ConfigError
from hms_ray.simulate.options import CONTROLS, PROFILE_NAMES, Control, ProfileName, patient_numbers
from hms_ray.text import counted

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from hms_ray.pack.parallel import Mapper

_FOLDER: Final = typer.Argument(metavar="DIR", help="Competition folder.")


def _listed(names: Mapping[Any, str]) -> str:
    return "; ".join(f"{name}: {text}" for name, text in names.items())


def check(
    folder: Annotated[Path | None, _FOLDER] = None,
    labels: Annotated[
        Path | None,
        option(
            "Label table, CSV or parquet; without DIR only this table is checked.",
            "FILE",
            default="DIR/train.csv",
        ),
    ] = None,
    table_only: Annotated[
        bool, flag("--table-only", "Check the label table only (seconds).")
    ] = False,
    no_signals: Annotated[
        bool,
        flag("--no-signals", "Do not read the values of recordings (much faster)."),
    ] = False,
    as_json: Annotated[bool, flag("--json", "Print JSON with every single fault.")] = False,
) -> int:
    """Find every fault of a competition folder, or of a label table."""
    from hms_ray.competition.check import check_folder, check_table
    from hms_ray.competition.read import LABEL_FILE

    if folder is None and labels is None:
        raise ConfigError("check needs a folder or a table", fix="Name DIR or --labels FILE.")
    if folder is None or table_only:
        report = check_table(labels or Path(str(folder)) / LABEL_FILE)
    else:
        report = check_folder(folder, labels=labels, signals=not no_signals)
    print(report.to_json() if as_json else report.to_text())
    if report.ok and folder is not None and not (table_only or as_json):
        print_next("pack", folder)
    return 0 if report.ok else 1


def simulate(
    out: Annotated[Path, option("Folder to write.", "DIR")],
    patients: Annotated[
        int | None,
        option("Number of patients.", "N", default="100; with --profile competition 1950"),
    ] = None,
    seed: Annotated[int, option("Seed of all draws.", "S")] = 0,
    profile: Annotated[
        ProfileName, option(f"Structure of the data. {_listed(PROFILE_NAMES)}.")
    ] = "small",
    signals: Annotated[
        int | None,
        option(
            "Number of patients with recordings: train.csv then has the first N patients and "
            "labels.csv has all; 0 writes neither recordings nor train.csv.",
            "N",
            default="all; with --profile competition 0",
        ),
    ] = None,
    control: Annotated[
        list[str] | None,
        option(
            f"Negative control that removes one cause; can be repeated. {_listed(CONTROLS)}.",
            "NAME",
        ),
    ] = None,
    processes: Annotated[
        int | None, option("Number of processes.", "N", default="number of cores")
    ] = None,
) -> None:
    """Write a simulated competition folder, whose true probabilities are known."""
    import os

    from hms_ray.display.live import bar
    from hms_ray.simulate.cohort import N_TEST
    from hms_ray.simulate.folder import simulate_folder

    n_patients, n_signals = patient_numbers(profile, patients, signals)
    with bar("simulating", "patients") as progress:
        simulate_folder(
            out,
            n_patients=n_patients,
            seed=seed,
            processes=(os.cpu_count() or 1) if processes is None else processes,
            progress=progress,
            profile=profile,
            controls=cast("list[Control]", control or []),
            n_signals=n_signals,
        )
    whose, others = counted(n_patients, "patient"), f"and {N_TEST} in test.csv"
    made = f"labels of {whose}, no recordings (see --signals)"
    if n_signals == n_patients:
        made = f"data of {whose} {others}"
    elif n_signals:
        made = f"labels of {whose}, recordings of {n_signals:,} {others}"
    print(f"simulated {made}: {out}")
    print_next("check", *([out] if n_signals else ["--labels", out / "labels.csv"]))


def oracle(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Competition folder written by simulate.")
    ],
    study: Annotated[
        str | None, option("Compare the best trial and the blend of this study.", "NAME")
    ] = None,
    results: Results = RESULTS,
    as_json: Json = False,
) -> None:
    """Print the oracle KL of a simulated folder: the KL of a model that knows the truth.

    The oracle knows who voted on each row. The second oracle knows only how often
    each group of experts votes: in the lines for all rows, >=4 and >=10 votes among
    the rows of that line, in the other lines among all rows. The rows are those of
    DIR/train.csv, or of DIR/labels.csv if only labels were simulated.
    """
    from hms_ray.simulate.oracle import oracle_report

    if study is None:
        report = oracle_report(folder)
        print(report.to_json() if as_json else report.to_text())
        return
    from hms_ray.blend.study_scores import best_scores
    from hms_ray.study.folder import StudyFolder

    opened = StudyFolder.open(study, results)
    data = opened.space().experiment.data
    rows = opened.rows()
    # Held-out rows have no out-of-fold score to compare with.
    scored = None if opened.held_out_rows() is None else rows["row_id"].tolist()
    report = oracle_report(folder, data.unit, data.window, scored)
    report.require_rows(rows)
    scores = best_scores(opened)
    print(report.study_json(scores) if as_json else report.study_text(scores))


def spectrogram(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="EEG.parquet", help="EEG as in the competition: 19 electrodes and EKG, 200 Hz."
        ),
    ],
    out: Annotated[
        Path | None, option("File to write.", "FILE", default="./EEG_spectrogram.parquet")
    ] = None,
    force: Annotated[bool, flag("--force", "Replace an existing file.")] = False,
) -> None:
    """Compute the spectrogram of an EEG file, in the competition's format."""
    from hms_ray.competition.read import read_eeg
    from hms_ray.competition.write import require_place, write_spectrogram
    from hms_ray.signal.spectrogram import recording_spectrogram

    target = out or Path(f"{file.stem}_spectrogram.parquet")
    require_place(target, replace=force)
    table = recording_spectrogram(read_eeg(file))
    write_spectrogram(target, table)
    print(
        f"{target}: {counted(len(table), 'row')}, 2 s each; time counts from the start of the EEG"
    )


def pack(
    folder: Annotated[Path, _FOLDER],
    space: Annotated[
        str | None,
        option(
            "Pack every source of this experiment or search space, a file or shipped name.",
            "FILE",
            default="Kaggle's spectrograms",
        ),
    ] = None,
    settings: Settings = None,
    pack_dir: Annotated[
        Path | None, option("Folder of packs.", "DIR", default="DIR/packed")
    ] = None,
    workers: Annotated[
        int | None, option("Number of processes on this machine.", "N", default="number of cores")
    ] = None,
    address: Annotated[
        str | None,
        option("Running Ray cluster to pack on.", "HOST:PORT", default="this machine, without Ray"),
    ] = None,
    rebuild: Annotated[bool, flag("--rebuild", "Pack again even if the packs exist.")] = False,
    verify: Annotated[bool, flag("--verify", "Compare contents with their checksums.")] = False,
) -> None:
    """Pack the signals of a folder into memory-mapped arrays; done once, used by all studies."""
    from contextlib import nullcontext

    from hms_ray.config.shipped import find_space
    from hms_ray.dataset.pack_command import pack_folder, space_to_pack

    wanted = space_to_pack(None if space is None else find_space(space), settings or [])
    mapping: AbstractContextManager[Mapper | None] = nullcontext()
    if address is not None:
        from hms_ray.distributed.pack_mapper import ray_mapper

        mapping = ray_mapper(address, folder)
    with mapping as mapper:
        pack_folder(
            folder,
            wanted,
            pack_dir,
            workers=workers,
            mapper=mapper,
            rebuild=rebuild,
            verify=verify,
        )
    place = [] if pack_dir is None else ["--pack-dir", pack_dir]
    changes = [word for setting in settings or () for word in ("--set", setting)]
    print_next("sweep", space or "demo", "--data", folder, *place, *changes)
