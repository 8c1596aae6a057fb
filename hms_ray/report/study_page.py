"""The report of a study: its sections, in the order in which people ask."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import pandas as pd

from hms_ray.competition.schema import CLASSES
from hms_ray.display.cells import OPTIMISTIC_LEGEND, TIE_LEGEND, rows_text, score_text, signed
from hms_ray.display.leaderboard import columns_of
from hms_ray.display.run_cost import cost_table
from hms_ray.display.tables import NO_BREAK, Column, Table
from hms_ray.display.trial_choice import choice_text
from hms_ray.errors import one_line
from hms_ray.evaluate.metric import OBJECTIVES, SCORE_NAMES
from hms_ray.report import figures, frames
from hms_ray.report.page import Page, Section, code, paragraphs, score_box, table
from hms_ray.report.study_data import StudyData
from hms_ray.study.confirmation import confirmation_table, confirmed_trials
from hms_ray.study.cost import read_costs
from hms_ray.study.holdout import openings
from hms_ray.study.run_outcome import FINISHED, read_outcome
from hms_ray.study.trial import StoredTrial, saved_by_pruning
from hms_ray.text import command_line, counted

N_BEST: Final = 6
"""Trials that stand out among the curves."""
_OPTIMISTIC: Final = " (optimistic)"


class StudyPage:
    """Makes the page of a study.

    A section that cannot be made is left out and named among what is missing.

    Args:
        data: the study.
    """

    def __init__(self, data: StudyData) -> None:
        self.data, self.folder = data, data.folder
        self.objective, self.score = data.objective, SCORE_NAMES[data.objective]
        self.page = Page(f"Study {data.folder.name}")
        self._curves: pd.DataFrame | None = None

    def made(self) -> Page:
        """The whole page."""
        sections: tuple[tuple[str, Callable[[], list[str]]], ...] = (
            ("Scores", self._scores),
            ("Leaderboard", self._leaderboard),
            ("Progress of the search", self._progress),
            ("What the search found", self._search),
            ("Curves", self._all_curves),
            ("KL by class and by votes", self._parts),
            ("Confusion of vote shares", self._confusion),
            ("Reliability", self._reliability),
            ("AUROC and AUPRC", self._discrimination),
            ("Correlation of errors", self._correlation),
            ("Blend", self._blend),
            ("Cost", self._cost),
            ("Faults", self._faults),
            ("Reproduce a trial", self._reproduce),
        )
        self.data.check_files()
        for title, make in sections:
            try:
                parts = make()
            # A report with one section less is better than none.
            except Exception as error:
                self.data.note(f"The section {title}: {one_line(error)}")
                continue
            if parts := [part for part in parts if part]:
                self.page.sections.append(Section(title, parts))
        self.page.lead, self.page.missing = self._lead(), self.data.missing
        return self.page

    def _lead(self) -> list[str]:
        data = self.data
        states = pd.Series([trial.state for trial in data.trials]).value_counts().to_dict()
        ended = ", ".join(f"{number:,} {state}" for state, number in states.items())
        parts = [counted(len(data.trials), "trial") + (f" ({ended})" if len(states) > 1 else "")]
        if data.rows is not None:
            rows = data.rows
            parts.append(f"{counted(len(rows), 'row')} of {_patients(rows)}")
            parts.append(counted(rows["fold"].nunique(), "fold"))
        lead = [f"{', '.join(parts)}. Trials are ordered by {self.score}: smaller is better."]
        if data.simulated:
            lead.append("The data are simulated: scores say nothing about real recordings.")
        elif data.data_folder is not None and data.simulated is None:
            lead.append(f"Data: {data.data_folder}.")
        if self.data.running:
            lead.append("The study is running: this is what there was when the page was written.")
        outcome = read_outcome(self.folder.path)
        if outcome is not None and outcome.text != FINISHED:
            lead.append(f"The last run ended at {outcome.ended} (UTC): {outcome.text}.")
        return lead

    # Scores

    def _scores(self) -> list[str]:
        choice = self.data.choice()
        boxes = []
        if choice is not None and choice.best_trial is not None:
            mark = _OPTIMISTIC if choice.optimistic else ""
            boxes.append(
                score_box(
                    f"Best trial, {choice.best_trial:04d}{mark}",
                    score_text(choice.best_score),
                    f"{self.score}, on the rows that chose it",
                )
            )
            if choice.nested is not None:
                boxes.append(
                    score_box(
                        f"Choice of the trial, nested{mark}",
                        score_text(choice.nested),
                        f"{self.score} {_ends(choice.low, choice.high)}, on other patients",
                    )
                )
        boxes += self._blend_box()
        opened, held_out = self._hold_out()
        boxes += opened
        if not boxes:
            return []
        text = "" if choice is None else choice_text(choice)
        return [f'<div class="scores">{"".join(boxes)}</div>', paragraphs(text), *held_out]

    def _blend_box(self) -> list[str]:
        blend = self.data.blend
        if blend is None:
            return []
        mark = _OPTIMISTIC if blend.get("optimistic") else ""
        objective = blend.get("fit_rows", self.objective)
        ends = blend.get("nested_interval") or {}
        return [
            score_box(
                f"Blend, nested{mark}",
                score_text(blend["nested"].get(objective)),
                f"{SCORE_NAMES[objective]} {_ends(ends.get('low'), ends.get('high'))}, "
                f"{blend['method']} of {counted(len(blend['members']), 'model')}",
            )
        ]

    def _hold_out(self) -> tuple[list[str], list[str]]:
        """Boxes and a table of the latest opening of the hold-out."""
        if "holdout" not in self.folder.identity.get("data", {}):
            return [], []
        found: list[dict[str, Any]] = []
        with self.data.noted("Openings of the hold-out"):
            found = openings(self.folder)
        if not found:
            command = command_line("holdout", self.folder.name)
            text = "The held-out patients were not scored yet. When all choices are made: "
            return [], [paragraphs(text), code(command)]
        last, boxes, rows = found[-1], [], []
        for one in last.get("scores", []):
            single = (one.get("single_fold_models") or {}).get(self.objective) or {}
            mean = (one.get("mean_of_fold_models") or {}).get(self.objective) or {}
            boxes.append(
                score_box(
                    f"Hold-out, {one['name']}",
                    score_text(single.get("mean", mean.get("mean"))),
                    f"{self.score} {_ends(single.get('low'), single.get('high'))}, patients that "
                    "chose nothing",
                )
            )
            out_of_fold = (one.get("out_of_fold") or {}).get(self.objective)
            rows.append((one["name"], _interval(single), _interval(mean), _interval(out_of_fold)))
        names = ("model", "single fold models", "mean of the fold models", "out-of-fold")
        columns = tuple(
            Column(name, [row[place] for row in rows], right=place > 0)
            for place, name in enumerate(names)
        )
        times = counted(len(found), "time")
        note = f"Opened {times}, last on {last.get('date')}. {self.score} with 95% intervals."
        return boxes, [table(Table("Held-out patients", columns, (note,)))]

    # Trials

    def _leaderboard(self) -> list[str]:
        frame = frames.trials(self.data)
        if frame.empty:
            return []
        ends = [_ends(low, high) for low, high in zip(frame["low"], frame["high"], strict=True)]
        columns = columns_of(frame.drop(columns=["low", "high"]))
        place = next(n for n, one in enumerate(columns) if one.title == self.score)
        columns.insert(place + 1, Column("95% interval", ends))
        known = {f"{trial.number:04d}" for trial in self.data.finished}
        unread = frame["rank"].notna() & ~frame["trial"].isin(known)
        notes = [
            (
                "Intervals are clustered by patient. They describe one trial each: two trials that "
                "share rows differ by less, so ties are found by their paired difference."
            ),
            TIE_LEGEND,
        ]
        if frame["optimistic"].any():
            notes.append(OPTIMISTIC_LEGEND.removeprefix("* "))
        if unread.any():
            numbers = ", ".join(frame.loc[unread, "trial"])
            notes.append(f"Without predictions, and so without interval and tie: {numbers}.")
        best = 0 if frame["rank"].notna().any() else None
        parts = [
            table(
                Table("All trials, best first", tuple(columns), tuple(notes)),
                sortable=True,
                best=best,
            )
        ]
        with self.data.noted("Trials confirmed with new seeds"):
            again = confirmation_table(confirmed_trials(self.folder), self.objective)
            if again is not None:
                parts.append(table(again))
        return parts

    def _progress(self) -> list[str]:
        frame = frames.progress(self.data)
        if frame["score"].notna().sum() < 2:
            return []
        steps = frame[frame["best"].diff().fillna(-1.0) < 0]
        numbers = table(
            Table(
                "New best trials",
                (
                    Column("trial", [f"{number:04d}" for number in steps["trial"]], right=False),
                    Column(self.score, [score_text(best) for best in steps["best"]]),
                    Column("hours of training", [f"{hours:.2f}" for hours in steps["hours"]]),
                ),
            )
        )
        parts = [
            self.page.figure(
                figures.progress(frame, self.objective, by),
                f"{self.score} of each trial and the best so far over {what}",
                numbers=numbers if by == "trial" else "",
            )
            for by, what in (("trial", "trials"), ("hours", "hours of training"))
        ]
        text = (
            "The best so far is optimistic: the more trials, the lower the best of them by luck "
            "alone. The 5% of trials with the highest scores may lie above the picture."
        )
        return [f'<div class="pair">{"".join(parts)}</div>', paragraphs(text, css="note")]

    def _search(self) -> list[str]:
        from hms_ray.report import search_figures

        study = search_figures.optuna_study(self.data)
        if study is None:
            return []
        parts = []
        with self.data.noted("The importance of the parameters"):
            parts.append(self._importance(search_figures.importance(study)))
        with self.data.noted("Slices of the search"):
            parts.append(
                self.page.figure(
                    search_figures.slices(study, self.objective),
                    f"{self.score} of each trial over each searched parameter",
                    "One point per finished trial. What other parameters do is not removed.",
                )
            )
        log = {name for name, one in self.folder.space().parameters.items() if one.log}
        figure = figures.parallel(frames.trials(self.data), self.objective, log)
        parts.append(
            self.page.figure(
                figure,
                "Parallel coordinates: one line per finished trial through its values",
                "Drag along an axis to keep the trials in that range; click it to keep all again. "
                "The same numbers stand in the leaderboard.",
            )
        )
        return parts

    def _importance(self, figure: Any) -> str:
        bars = figure.data[0]
        numbers = Table(
            "Importance",
            (
                Column("parameter", [str(name) for name in bars.y], right=False),
                Column("importance", [f"{float(value):.3f}" for value in bars.x]),
            ),
        )
        return self.page.figure(
            figure,
            f"Importance of each searched parameter for {self.score}",
            "Share of the variance of the score that a parameter explains (fANOVA, by Optuna), "
            "within the searched ranges and the trials of this study.",
            numbers=table(numbers),
        )

    # Curves

    def _all_curves(self) -> list[str]:
        frame = frames.curves(self.data)
        if frame.empty or frame[self.objective].notna().sum() == 0:
            return []
        known = list(dict.fromkeys(frame["trial"].tolist()))
        order = [trial.number for trial in self.data.finished if trial.number in known]
        order += [number for number in known if number not in order]
        by_trial = dict(iter(frame.groupby("trial")))
        choices = {
            self._choice_name(number): figures.fold_curves(by_trial[number], self.objective)
            for number in order
        }
        figure = figures.curves(frame, self.objective, order[0])
        numbers = self._last_evaluations(by_trial[order[0]])
        return [
            self.page.figure(
                figures.all_curves(frame, self.objective, order[:N_BEST]),
                f"{self.score} over epochs, mean over folds, of all trials with the best ones "
                "standing out",
                "Of each evaluation on the fold's own validation rows. The scores of the "
                "leaderboard are of the kept weights and pooled over folds.",
            ),
            self.page.figure(
                figure,
                f"{self.score} over epochs of each fold of one trial, with the starts of stages",
                numbers=numbers,
                choices=choices,
            ),
        ]

    def _choice_name(self, number: int) -> str:
        trial = next(one for one in self.data.trials if one.number == number)
        if not trial.finished:
            return f"trial {number:04d}, {trial.state}"
        return f"trial {number:04d}, {self.score} {score_text(trial.scores[self.objective])}"

    def _last_evaluations(self, part: pd.DataFrame) -> str:
        last = part.groupby("fold").last().reset_index()
        columns = [
            Column("fold", [str(fold) for fold in last["fold"]]),
            Column("stage", last["stage"].astype(str).tolist(), right=False),
            Column("epoch", [f"{epoch:g}" for epoch in last["epoch"]]),
            *(
                Column(SCORE_NAMES[name], [_score(one) for one in last[name]])
                for name in OBJECTIVES
            ),
            Column("train loss", [_score(one) for one in last["train_loss"]]),
        ]
        title = f"Last evaluations of trial {part['trial'].iloc[0]:04d}"
        return table(Table(title, tuple(columns)))

    # What the predictions show

    def _parts(self) -> list[str]:
        frame = frames.kl_parts(self.data)
        if frame.empty:
            return []
        rows = rows_text(self.objective)
        texts = {
            "class": f"Parts of {self.score} by class ({rows}); they sum to it. A part below 0: "
            "the class is predicted above its share.",
            "tier": "Mean KL of rows with 1-3, 4-9 and at least 10 votes.",
        }
        made = []
        for by, text in texts.items():
            chosen = frame[frame["by"] == by]
            wide = chosen.pivot(index="model", columns="part", values="kl")
            wide = wide.loc[chosen["model"].unique(), chosen["part"].unique()]
            columns = [Column("model", [str(name) for name in wide.index], right=False)]
            columns += [Column(str(part), [_score(kl) for kl in wide[part]]) for part in wide]
            about = "KL by class" if by == "class" else "KL by number of votes"
            numbers = table(Table(about, tuple(columns)))
            made.append(self.page.figure(figures.kl_parts(frame, by), about, text, numbers))
        return [f'<div class="pair">{"".join(made)}</div>']

    def _best(self) -> str:
        trial = self.data.finished[0]
        return f"trial {trial.number:04d}{_OPTIMISTIC if trial.optimistic else ''}"

    def _confusion(self) -> list[str]:
        frame = frames.confusion(self.data)
        if frame.empty:
            return []
        wide = frame.pivot(index="true", columns="predicted", values="share").loc[list(CLASSES)]
        ideal = frame.pivot(index="true", columns="predicted", values="ideal").loc[list(CLASSES)]
        rows = frame.drop_duplicates("true").set_index("true")["rows"]
        columns = (
            Column("experts' votes", list(CLASSES), right=False),
            *(
                Column(
                    name,
                    [
                        f"{_share(a)} ({_share(b)})"
                        for a, b in zip(wide[name], ideal[name], strict=True)
                    ],
                )
                for name in CLASSES
            ),
            Column("rows", [f"{rows[name]:,.1f}" for name in CLASSES]),
        )
        note = "In brackets: the same for predictions equal to the votes."
        return [
            paragraphs(_largest_confusion(frame)),
            self.page.figure(
                figures.confusion(frame),
                f"Mean predicted share by the class that experts voted for, {self._best()}",
                f"Of {self._best()} on {rows_text(self.objective)}. Each row: the mean predicted "
                "shares where experts voted for its class, weighted by their share of votes; it "
                "sums to 1. Experts disagree, so a perfect model has less than 1 on the diagonal "
                "(its numbers are in the table).",
                table(Table("Mean predicted share", columns, (note,))),
            ),
            paragraphs("The rows themselves, those of largest loss first:"),
            code(command_line("rows", self.folder.name)),
        ]

    def _reliability(self) -> list[str]:
        frame = frames.reliability(self.data)
        if frame.empty:
            return []
        ece = frame.drop_duplicates("name")
        means = Table(
            "Expected calibration error (ECE)",
            (
                Column("class", ece["name"].tolist(), right=False),
                Column("ECE", [f"{value:.4f}" for value in ece["ece"]]),
            ),
            (f"Mean over classes: {ece['ece'].mean():.4f}.",),
        )
        bins = frame[frame["rows"] > 0]
        numbers = Table(
            "Bins",
            (
                Column("class", bins["name"].tolist(), right=False),
                Column(
                    "bin",
                    [f"{a:.1f} to {b:.1f}" for a, b in zip(bins["low"], bins["high"], strict=True)],
                ),
                Column("rows", [f"{count:,}" for count in bins["rows"]]),
                Column("predicted", [f"{value:.3f}" for value in bins["predicted"]]),
                Column("votes", [f"{value:.3f}" for value in bins["true"]]),
            ),
        )
        return [
            self.page.figure(
                figures.reliability(frame),
                f"Mean predicted share against mean share of the votes by class, {self._best()}",
                f"Of {self._best()} on {rows_text(self.objective)}, in ten bins of the predicted "
                "share; bars count the rows of a bin. Points above the dashed line: predicted too "
                "low. ECE: mean distance from the line, weighted by rows (Naeini et al. 2015; by "
                "class as in Kull et al. 2019). Few votes are noisy, so it is above 0 for a "
                "perfect model too.",
                table(numbers),
            ),
            table(means),
        ]

    def _discrimination(self) -> list[str]:
        frame = frames.discrimination(self.data)
        if frame.empty:
            return []

        def area(name: str) -> list[str]:
            ends = zip(frame[name], frame[f"{name}_low"], frame[f"{name}_high"], strict=True)
            return [f"{value:.4f} {_ends(low, high)}" for value, low, high in ends]

        columns = (
            Column("class", frame["name"].tolist(), right=False),
            Column("AUROC", area("auroc")),
            Column("AUPRC", area("auprc")),
            Column("AUPRC of a constant", [f"{share:.4f}" for share in frame["share"]]),
        )
        counts = (
            f"{counted(int(frame['rows'].iloc[0]), 'row')} of "
            f"{counted(int(frame['patients'].iloc[0]), 'patient')} with >= 10 votes."
        )
        note = (
            "Each row is positive with its share of the votes and negative with the rest. "
            "95% intervals: bootstrap over patients."
        )
        return [
            self.page.figure(
                figures.discrimination(frame),
                f"AUROC and AUPRC of each class with 95% intervals, {self._best()}",
            ),
            table(Table(f"Areas of {self._best()}", columns, (note, counts))),
        ]

    def _correlation(self) -> list[str]:
        frame = frames.error_correlation(self.data)
        if frame.empty:
            return []
        columns = [Column("trial", [str(name) for name in frame.index], right=False)]
        columns += [Column(str(name), [_share(value) for value in frame[name]]) for name in frame]
        return [
            self.page.figure(
                figures.error_correlation(frame),
                "Correlation of the errors of the best trials",
                f"Of the errors, predicted minus true shares, of the best trials on "
                f"{rows_text(self.objective)}. The lower it is, the more a blend gains.",
                table(Table("Correlation of errors", tuple(columns))),
            )
        ]

    # Blend, cost, faults

    def _blend(self) -> list[str]:
        blend = self.data.blend
        if blend is None:
            if len(self.data.finished) < 2:
                return []
            text = "No blend of this study is stored. Make one:"
            return [paragraphs(text), code(command_line("blend", self.folder.name))]
        scores = Table(
            f"Blend: {blend['method']}",
            (
                Column("scored", ["in-sample", "nested"], right=False),
                *(
                    Column(
                        title,
                        [score_text(blend[part].get(name)) for part in ("in_sample", "nested")],
                    )
                    for name, title in SCORE_NAMES.items()
                ),
            ),
            (
                (
                    "in-sample: on the rows that its weights were fitted on, optimistic. "
                    "nested: on patients that had no part in the fit."
                ),
            ),
        )
        parts = [table(scores), paragraphs(*_certificate(blend))]
        frame = frames.blend_weights(self.data)
        if not frame.empty:
            columns = (
                Column("model", [str(name) for name in frame["model"]], right=False),
                Column("weight", [f"{weight:.4f}" for weight in frame["weight"]]),
                Column(
                    "nested weights",
                    [
                        f"{_score(low)} to {_score(high)}"
                        for low, high in zip(frame["nested_low"], frame["nested_high"], strict=True)
                    ],
                ),
            )
            parts.append(
                self.page.figure(
                    figures.blend_weights(frame),
                    "Weights of the blend in sample, and the range of the nested ones",
                    "Bars: fitted on all patients. Ranges: smallest and largest weight among the "
                    "fits on other patients. A weight with a wide range is not well determined.",
                    table(Table("Weights", columns), sortable=True),
                )
            )
        return parts

    def _cost(self) -> list[str]:
        frame = frames.cost(self.data)
        if frame.empty:
            minutes = sum(trial.fold_minutes - trial.saved_minutes for trial in self.data.trials)
            return [paragraphs(f"Training of all trials: {minutes / 60:.2f} hours.")]
        total = {
            name: float((frame[name] * frame["devices"]).sum()) / 3600
            for name in ("training_s", "saved_by_pruning_s")
        }
        store = frame["saved_by_store_s"] + frame["saved_by_stages_s"]
        saved = float((store * frame["devices"]).sum()) / 3600
        n_pruned, n_folds, _ = saved_by_pruning(self.data.trials)
        text = (
            f"Training: {total['training_s']:.2f} device hours (GPU hours on GPUs, else CPU "
            f"hours). The fold store and shared stages saved {saved:.2f}, pruning about "
            f"{total['saved_by_pruning_s']:.2f} ({counted(n_pruned, 'trial')}, "
            f"{counted(n_folds, 'fold')} not trained)."
        )
        return [
            paragraphs(text),
            self.page.figure(
                figures.cost(frame),
                "Device hours of each run: training, scoring, idle slots, and what was saved",
                numbers=table(cost_table(read_costs(self.folder.path))),
            ),
        ]

    def _faults(self) -> list[str]:
        frame = frames.faults(self.data)
        if frame.empty:
            return [paragraphs("None: no trial failed, and the logs have no warning.")]
        columns = (
            Column("what", frame["what"].tolist(), right=False),
            Column("times", [f"{times:,}" for times in frame["times"]]),
            Column("text", frame["text"].tolist(), right=False),
            Column("where", frame["where"].tolist(), right=False),
        )
        note = (
            "Trials that ended without a score; then, from log.txt and logs/, restarts (lost "
            "worker groups, folds that resumed), warnings and errors. Lines that "
            "differ in numbers alone count as one."
        )
        runs = f"{counted(len(self.data.runs), 'run')} of the study are recorded."
        runs = runs if len(self.data.runs) > 1 else ""
        return [paragraphs(runs), table(Table("Faults met", columns, (note,)), sortable=True)]

    def _reproduce(self) -> list[str]:
        folder, path = self.folder, self.folder.path
        if not self.data.trials:
            return []
        words = self.data.command
        parts = [paragraphs("The command of the last run:"), code(command_line(*words))]
        parts = parts if words else []
        data = self.data.data_folder or "DIR"
        parts.append(
            paragraphs(
                "One trial: its command trains the same folds with the same cache keys; folds in "
                "the fold store are not trained again."
            )
        )
        order = [*self.data.finished]
        order += [trial for trial in self.data.trials if trial not in order]
        for trial in order:
            command = command_line(
                *("train", trial.path / "experiment.yaml", "--data", data),
                *("--folds", path / "rows.parquet"),
                *("--study", f"{folder.name}-{trial.path.name}"),
                *("--results", path.parent),
            )
            parts.append(_configuration(trial, command))
        return parts


def _configuration(trial: StoredTrial, command: str) -> str:
    """The command and the experiment of a trial, folded away."""
    title = f"trial {trial.number:04d}" + ("" if trial.finished else f", {trial.state}")
    try:
        text = (trial.path / "experiment.yaml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        text = f"experiment.yaml cannot be read: {one_line(error)}"
    return f"<details><summary>{title}</summary>{code(command)}{code(text)}</details>"


def _certificate(blend: dict[str, Any]) -> list[str]:
    """What is certain about the fit, in sentences."""
    texts = []
    gap = blend.get("gap")
    if gap is not None:
        texts.append(
            f"Certificate: no weights of these models have an in-sample KL lower by more than "
            f"{gap:.1e} nats (duality gap of the fit)."
        )
    for against, found in (blend.get("nested_minus") or {}).items():
        objective = found.get(blend.get("fit_rows", "")) or {}
        if objective:
            ends = _ends(objective.get("low"), objective.get("high"), signs=True)
            texts.append(
                f"Nested KL minus that of {against.replace('_', ' ')}: "
                f"{signed(objective['mean'])} {ends}, {found['verdict']}."
            )
    return texts


def _largest_confusion(frame: pd.DataFrame) -> str:
    """The class that takes most from another one, beyond what experts themselves do."""
    apart = frame[frame["true"] != frame["predicted"]].dropna(subset=["share"])
    if apart.empty:
        return ""
    excess = apart["share"] - apart["ideal"]
    worst = apart.iloc[int(excess.to_numpy().argmax())]
    if excess.max() < 0.02:
        return "No class takes much more from another one than the votes themselves."
    return (
        f"Largest confusion: where experts vote for {worst['true']}, {worst['predicted']} is "
        f"predicted with {worst['share']:.2f} on average; the votes themselves have "
        f"{worst['ideal']:.2f}."
    )


def _patients(rows: pd.DataFrame) -> str:
    return counted(rows["patient_id"].nunique(), "patient")


def _interval(found: dict[str, Any] | None) -> str:
    if not found or found.get("mean") is None:
        return "-"
    return f"{score_text(found['mean'])} {_ends(found.get('low'), found.get('high'))}"


def _ends(low: float | None, high: float | None, *, signs: bool = False) -> str:
    """Ends of an interval in brackets; empty if unknown."""
    if low is None or high is None or not math.isfinite(high - low):
        return ""
    shown = signed if signs else score_text
    return f"[{shown(low)},{NO_BREAK}{shown(high)}]"


def _score(value: Any) -> str:
    return score_text(None if pd.isna(value) else float(value))


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def study_page(data: StudyData) -> Page:
    """The report of a study; nothing that is missing raises."""
    return StudyPage(data).made()
