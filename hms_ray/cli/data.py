"""Commands on folders and files: check, simulate, floor, pack, spectrogram."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hms_ray.cli.options import Commands, add_results_option
from hms_ray.text import counted

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from hms_ray.pack.parallel import Mapper


def add_check(commands: Commands) -> argparse.ArgumentParser:
    """Adds ``check``."""
    command = commands.add_parser("check", help="find every fault of a competition folder")
    command.add_argument("folder", metavar="DIR", type=Path, nargs="?", help="competition folder")
    command.add_argument("--json", action="store_true", help="print JSON, with every single fault")
    command.add_argument(
        "--labels",
        metavar="FILE",
        type=Path,
        help="label table, CSV or parquet (DIR/train.csv); without DIR it is checked alone",
    )
    command.add_argument(
        "--table-only", action="store_true", help="check the label table alone (seconds)"
    )
    command.add_argument(
        "--no-signals", action="store_true", help="leave the files' values unread (much faster)"
    )
    command.set_defaults(call=_run_check)
    return command


def _run_check(words: argparse.Namespace) -> int:
    from hms_ray.competition.check import check_folder, check_table
    from hms_ray.competition.read import LABEL_FILE

    if words.folder is None and words.labels is None:
        from hms_ray.errors import ConfigError

        raise ConfigError("check needs a folder or a table", fix="Name DIR or --labels FILE.")
    if words.folder is None or words.table_only:
        report = check_table(words.labels or words.folder / LABEL_FILE)
    else:
        report = check_folder(words.folder, labels=words.labels, signals=not words.no_signals)
    print(report.to_json() if words.json else report.to_text())
    return 0 if report.ok else 1


def add_simulate(commands: Commands) -> argparse.ArgumentParser:
    """Adds ``simulate``."""
    from hms_ray.simulate.options import CONTROLS, PROFILE_NAMES

    def listed(names: Mapping[Any, str]) -> str:
        return "; ".join(f"{name}: {text}" for name, text in names.items())

    command = commands.add_parser("simulate", help="write a simulated competition folder")
    command.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder to write")
    command.add_argument(
        "--patients",
        metavar="N",
        type=int,
        default=None,
        help="patients (100; with --profile competition 1950)",
    )
    command.add_argument("--seed", metavar="S", type=int, default=0, help="seed (0)")
    command.add_argument(
        "--profile",
        choices=list(PROFILE_NAMES),
        default="small",
        help=f"structure (small). {listed(PROFILE_NAMES)}",
    )
    command.add_argument(
        "--signals",
        metavar="N",
        type=int,
        default=None,
        help="patients whose recordings are written (all; with --profile competition 0): "
        "train.csv then lists the first N patients and labels.csv every one; 0 writes no "
        "recordings and no train.csv",
    )
    command.add_argument(
        "--control",
        choices=list(CONTROLS),
        action="append",
        default=[],
        help=f"negative control, repeatable: take one cause away. {listed(CONTROLS)}",
    )
    command.add_argument(
        "--processes", metavar="N", type=int, default=None, help="processes (all cores)"
    )
    command.set_defaults(call=_run_simulate)
    return command


def _run_simulate(words: argparse.Namespace) -> int:
    import os

    from hms_ray.report.progress import bar
    from hms_ray.simulate.folder import simulate_folder
    from hms_ray.simulate.options import asked_numbers

    patients, signals = asked_numbers(words.profile, words.patients, words.signals)
    processes = (os.cpu_count() or 1) if words.processes is None else words.processes
    with bar("simulating", "patients") as progress:
        simulate_folder(
            words.out,
            n_patients=patients,
            seed=words.seed,
            processes=processes,
            progress=progress,
            profile=words.profile,
            controls=words.control,
            n_signals=signals,
        )
    whose = counted(patients, "patient")
    if signals == patients:
        made = f"simulated data of {whose}"
    elif signals:
        made = f"simulated labels of {whose}, recordings of {signals:,}"
    else:
        made = f"simulated labels of {whose}, no recordings (see --signals)"
    print(f"{made}: {words.out}")
    return 0


def add_floor(commands: Commands) -> argparse.ArgumentParser:
    """Adds ``floor``."""
    command = commands.add_parser(
        "floor",
        help="KL that models which know the truth have on simulated votes",
        description="KL that models which know the truth have on simulated votes: one that knows "
        "who voted, and one that knows only how often each tier judges such rows, among the "
        "rows of a cumulative line, or among all rows for the lines by tier. Rows are those of "
        "DIR/train.csv, or of DIR/labels.csv where only labels were simulated.",
    )
    command.add_argument("folder", metavar="DIR", type=Path, help="simulated competition folder")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.add_argument("--study", metavar="NAME", help="say how far its best trial has come")
    add_results_option(command)
    command.set_defaults(call=_run_floor)
    return command


def _run_floor(words: argparse.Namespace) -> int:
    from hms_ray.simulate.oracle import oracle_report

    if words.study is None:
        report = oracle_report(words.folder)
        print(report.to_json() if words.json else report.to_text())
        return 0
    from hms_ray.blend.study_scores import best_scores
    from hms_ray.study.folder import StudyFolder

    study = StudyFolder.open(words.study, words.results)
    data = study.space().experiment.data
    report = oracle_report(words.folder, data.unit, data.window)
    report.require_rows(study.rows())
    scores = best_scores(study)
    if words.json:
        print(report.study_json(scores))
    else:
        print(report.study_text(scores))
    return 0


def add_pack(commands: Commands) -> argparse.ArgumentParser:
    """Adds ``pack``."""
    command = commands.add_parser("pack", help="pack a folder's signals into mapped arrays")
    command.add_argument("folder", metavar="DIR", type=Path, help="competition folder")
    command.add_argument(
        "--for",
        dest="file",
        metavar="FILE",
        type=Path,
        help="pack what this experiment or search space needs (the spectrograms alone)",
    )
    command.add_argument(
        "--set", metavar="A.B=C", action="append", default=[], help="change a value of --for"
    )
    command.add_argument(
        "--workers", metavar="N", type=int, help="processes of this machine (its cores)"
    )
    command.add_argument("--address", metavar="ADDR", help="running Ray cluster to pack on")
    command.add_argument(
        "--pack-dir", metavar="DIR", type=Path, help="folder of packs (DIR/packed)"
    )
    command.add_argument("--rebuild", action="store_true", help="make it again, whatever is there")
    command.add_argument("--verify", action="store_true", help="compare contents with checksums")
    command.set_defaults(call=_run_pack)
    return command


def _run_pack(words: argparse.Namespace) -> int:
    from contextlib import nullcontext

    from hms_ray.dataset.pack_command import pack_folder, space_to_pack

    space = space_to_pack(words.file, words.set)
    mapping: AbstractContextManager[Mapper | None] = nullcontext()
    if words.address is not None:
        from hms_ray.distributed.pack_mapper import ray_mapper

        mapping = ray_mapper(words.address, words.folder)
    with mapping as mapper:
        pack_folder(
            words.folder,
            space,
            words.pack_dir,
            workers=words.workers,
            mapper=mapper,
            rebuild=words.rebuild,
            verify=words.verify,
        )
    return 0


def add_spectrogram(commands: Commands) -> argparse.ArgumentParser:
    """Adds ``spectrogram``."""
    command = commands.add_parser(
        "spectrogram", help="write the spectrogram that the competition would have of an EEG file"
    )
    command.add_argument("file", metavar="EEG.parquet", type=Path, help="20 electrodes, 200 Hz")
    command.add_argument(
        "--out", metavar="FILE", type=Path, help="file to write (./EEG_spectrogram.parquet)"
    )
    command.add_argument("--force", action="store_true", help="replace a file that is there")
    command.set_defaults(call=_run_spectrogram)
    return command


def _run_spectrogram(words: argparse.Namespace) -> int:
    from hms_ray.competition.read import read_eeg
    from hms_ray.competition.write import require_place, write_spectrogram
    from hms_ray.signal.spectrogram import recording_spectrogram

    out = words.out or Path(f"{words.file.stem}_spectrogram.parquet")
    require_place(out, replace=words.force)
    spectrogram = recording_spectrogram(read_eeg(words.file))
    write_spectrogram(out, spectrogram)
    print(f"{out}: {counted(len(spectrogram), 'row')}, 2 s each, on the EEG's own time")
    return 0
