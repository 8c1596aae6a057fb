"""Words to calls: no logic, and no heavy import before a command is known."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hms_ray import __version__
from hms_ray.errors import HmsRayError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from hms_ray.config import Space
    from hms_ray.pack.parallel import Mapper


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: words after the program's name; those of the process if absent.

    Returns:
        Exit status: 0 done, 1 the command's own "no" (``check``), 2 an error of use.
    """
    words = build_parser().parse_args(arguments)
    try:
        return int(words.call(words))
    except HmsRayError as error:
        if words.debug:
            raise
        print(f"hms-ray {words.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nhms-ray {words.command}: stopped; the same command goes on.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe such as `| head` has seen enough.
        sys.stderr.close()
        return 0
    except OSError as error:
        if words.debug:
            raise
        where = f": {error.filename}" if error.filename else ""
        print(f"hms-ray {words.command}: {error.strerror or error}{where}", file=sys.stderr)
        return 2


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="hms-ray",
        description="Experiment sweeps on Ray for HMS - Harmful Brain Activity Classification.",
        epilog="A command's own options: hms-ray COMMAND --help",
    )
    parser.add_argument("--version", action="version", version=f"hms-ray {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in (
        _check,
        _simulate,
        _floor,
        _pack,
        _spectrogram,
        _train,
        _sweep,
        _blend,
        _leaderboard,
        _forest,
    ):
        command = add(commands)
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


Commands = argparse._SubParsersAction  # the type has no public name


def _check(commands: Commands[argparse.ArgumentParser]) -> argparse.ArgumentParser:
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


def _simulate(commands: Commands[argparse.ArgumentParser]) -> argparse.ArgumentParser:
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
    if signals == patients:
        made = f"simulated data of {patients:,} patients"
    elif signals:
        made = f"simulated labels of {patients:,} patients, recordings of {signals:,}"
    else:
        made = f"simulated labels of {patients:,} patients, no recordings (see --signals)"
    print(f"{made}: {words.out}")
    return 0


def _floor(commands: Commands[argparse.ArgumentParser]) -> argparse.ArgumentParser:
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
    _add_results_option(command)
    command.set_defaults(call=_run_floor)
    return command


def _run_floor(words: argparse.Namespace) -> int:
    from hms_ray.simulate.floor import floor

    if words.study is None:
        report = floor(words.folder)
        print(report.to_json() if words.json else report.to_text())
        return 0
    from hms_ray.study.blend import best_scores
    from hms_ray.study.folder import StudyFolder

    study = StudyFolder.open(words.study, words.results)
    data = study.space().experiment.data
    report = floor(words.folder, data.unit, data.window)
    report.require_rows(study.rows())
    scores = best_scores(study)
    if words.json:
        print(report.distance_json(scores))
    else:
        print(report.distance_text(scores))
    return 0


def _pack(commands: Commands[argparse.ArgumentParser]) -> argparse.ArgumentParser:
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

    from hms_ray.packing import pack_folder, space_to_pack

    space = space_to_pack(words.file, words.set)
    mapping: AbstractContextManager[Mapper | None] = nullcontext()
    if words.address is not None:
        from hms_ray.sweep.pack_tasks import ray_mapper

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


def _spectrogram(commands: Commands[argparse.ArgumentParser]) -> argparse.ArgumentParser:
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
    print(f"{out}: {len(spectrogram):,} rows, 2 s each, on the EEG's own time")
    return 0


def _add_run_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE", type=Path, help="experiment or search space, YAML")
    command.add_argument(
        "--data", metavar="DIR", type=Path, required=True, help="competition folder"
    )
    command.add_argument(
        "--set", metavar="A.B=C", action="append", default=[], help="change a value"
    )
    _add_results_option(command)
    command.add_argument(
        "--pack-dir", metavar="DIR", type=Path, help="folder of packs (DATA/packed)"
    )
    command.add_argument(
        "--folds", metavar="FILE", type=Path, help="fold table to use: row_id, patient_id, fold"
    )
    command.add_argument("--study", metavar="NAME", help="name below the results folder")
    command.add_argument("--address", metavar="ADDR", help="running Ray cluster (starts its own)")


def _train(commands: Commands[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    command = commands.add_parser("train", help="train one experiment")
    _add_run_options(command)
    command.add_argument(
        "--local", action="store_true", help="in this process, without Ray: breakpoints work"
    )
    command.add_argument(
        "--fold",
        metavar="K",
        type=int,
        action="append",
        help="only this fold (with --local; repeatable)",
    )
    command.add_argument(
        "--threads", metavar="N", type=int, default=1, help="torch threads (with --local; 1)"
    )
    command.set_defaults(call=_run_train)
    return command


def _run_train(words: argparse.Namespace) -> int:
    from hms_ray.config_file import load_space
    from hms_ray.local import train_locally

    space = load_space(words.file, words.set)
    if words.local:
        return train_locally(
            space,
            words.data,
            words.results,
            name=words.study,
            folds=words.fold,
            fold_table=words.folds,
            pack_dir=words.pack_dir,
            threads=words.threads,
        )
    if words.fold:
        from hms_ray.errors import ConfigError

        raise ConfigError("--fold needs --local", fix="A study on Ray trains all folds.")
    return _sweep_as_told(space.alone(), words.study or space.experiment.name, words)


def _sweep(commands: Commands[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    command = commands.add_parser("sweep", help="search a space on Ray")
    _add_run_options(command)
    command.add_argument("--trials", metavar="N", type=int, help="finished trials to end with")
    command.set_defaults(call=_run_sweep)
    return command


def _run_sweep(words: argparse.Namespace) -> int:
    from hms_ray.config_file import load_space

    settings = list(words.set)
    if words.trials is not None:
        settings.append(f"study.n_trials={words.trials}")
    space = load_space(words.file, settings)
    return _sweep_as_told(space, words.study or words.file.stem, words)


def _sweep_as_told(space: Space, name: str, words: argparse.Namespace) -> int:
    from hms_ray.sweep.command import sweep

    return sweep(
        space,
        words.data,
        words.results,
        name,
        fold_table=words.folds,
        pack_dir=words.pack_dir,
        address=words.address,
    )


def _blend(commands: Commands[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    command = commands.add_parser("blend", help="best weights for a study's trials")
    _add_study_options(command)
    command.add_argument(
        "--rows",
        choices=("kl_all", "kl_4", "kl_10"),
        help="rows that weights are fitted on (the study's objective)",
    )
    command.add_argument(
        "--splits",
        metavar="N",
        type=int,
        default=5,
        help="groups of patients for the nested estimate (5)",
    )
    command.add_argument(
        "--seed", metavar="S", type=int, default=0, help="seed of the groups and the bootstrap (0)"
    )
    command.set_defaults(call=_run_blend)
    return command


def _add_results_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--results",
        metavar="DIR",
        type=Path,
        default=Path("results"),
        help="folder of all studies (results)",
    )


def _add_study_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("study", metavar="STUDY", help="study name, or the path of its folder")
    _add_results_option(command)


def _run_blend(words: argparse.Namespace) -> int:
    from hms_ray.study.blend import blend_study

    print(blend_study(words.study, words.results, words.rows, words.splits, words.seed))
    return 0


def _leaderboard(commands: Commands[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    command = commands.add_parser("leaderboard", help="print a study's trials, best first")
    _add_study_options(command)
    command.set_defaults(call=_run_leaderboard)
    return command


def _run_leaderboard(words: argparse.Namespace) -> int:
    from hms_ray.study.folder import print_leaderboard

    print_leaderboard(words.study, words.results)
    return 0


def _forest(commands: Commands[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    command = commands.add_parser(
        "forest", help="pool ladders of several seeds and plot what each step brings"
    )
    command.add_argument("ladders", metavar="NAME", nargs="+", help="ladder, or its folder's path")
    command.add_argument(
        "--control", metavar="NAME", nargs="+", default=[], help="ladders of a negative control"
    )
    command.add_argument(
        "--out", metavar="DIR", type=Path, help="folder to write to (RESULTS/forest)"
    )
    _add_results_option(command)
    command.set_defaults(call=_run_forest)
    return command


def _run_forest(words: argparse.Namespace) -> int:
    from hms_ray.ladder.pool import forest

    print(forest(words.ladders, words.control, words.results, words.out))
    return 0
