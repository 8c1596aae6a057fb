"""The text of a blend's report, 80 columns wide."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hms_ray.ensemble.constrained import Cap
from hms_ray.ensemble.cross_validation import Candidate
from hms_ray.ensemble.methods.arithmetic import FittedMean, Fixed, Simplex
from hms_ray.ensemble.methods.log_linear import LogLinear
from hms_ray.ensemble.methods.registry import all_pools, named_pools
from hms_ray.ensemble.report import blend_report
from hms_ray.ensemble.result import YARDSTICKS, BlendReport
from hms_ray.evaluate.intervals import Difference
from hms_ray.report.blend_table import render_blend
from tests.pool_data import PoolData, pool_data

NAMES = ("0000", "0001", "0002")
DATA = pool_data(3, alike=True)


def report_of(data: PoolData = DATA, **changes: Any) -> BlendReport:
    arguments: dict[str, Any] = {"names": NAMES, "n_repeats": 2, "objective": "kl_4", **changes}
    return blend_report(
        data.targets,
        data.models,
        patients=data.patients,
        total_votes=data.votes,
        **arguments,
    )


@pytest.fixture(scope="module")
def report() -> BlendReport:
    return report_of(optimistic=[False, True, False])


@pytest.fixture(scope="module")
def chosen() -> BlendReport:
    pools = named_pools(["equal", "best_single", "simplex", "log_linear"])
    return report_of(candidates=pools, method=None, objective="kl_all")


def words(report: BlendReport) -> str:
    text = render_blend(report)
    assert max(map(len, text.splitlines())) <= 80
    return " ".join(text.split())


def test_a_blend_is_told(report: BlendReport) -> None:
    told = words(report)
    n_rows, n_good = len(DATA.votes), int((DATA.votes >= 4).sum())
    assert told.startswith(
        f"Blend of 3 models on {n_rows} rows of 40 patients; fitted and scored on rows of >= 4 "
        f"votes ({n_good}). Method: simplex. Certificate: at most "
    )
    fit = report.fitted
    assert isinstance(fit, FittedMean)
    steps = int(fit.facts["iterations"])
    assert (
        f"Certificate: at most {fit.facts['gap']:.1e} above the lowest KL that any weights "
        f"reach ({steps} Newton steps)." in told
    )
    for entry in report.choice.rated:
        others = [entry.by_objective[name] for name in ("kl_all", "kl_10")]
        shown = (entry.in_sample, entry.nested, abs(entry.optimism), *others)
        figures = " ".join(f"{figure:.4f}" for figure in shown)
        line = next(
            line for line in render_blend(report).splitlines() if f" {entry.name}  " in line
        )
        assert figures in " ".join(line.split())
        assert line.startswith(">") == (entry.name == "simplex")
    assert "2 splits" not in told
    assert "5 splits, mean of 2" in told
    assert "Choosing" not in told
    # The mark of methods within one standard error is of use where one is chosen.
    assert not re.search(r"^(>=|=|>?  =)", render_blend(report), re.MULTILINE)
    assert "the blend, nested, minus KL all" in told
    # Methods are told side by side with all yardsticks where one of them is chosen.
    assert told.count("(mean +- half of its paired 95% interval") == 1


def test_a_certificate_says_of_which_weights_it_is(report: BlendReport) -> None:
    bounded = Simplex(caps=[Cap([0], 0.2)], name="bounded")
    told = words(report_of(candidates=[*YARDSTICKS, bounded], method="bounded", n_repeats=1))
    assert re.search(
        r"Certificate: at most \d\.\de-\d\d above the lowest KL that weights within the caps and "
        r"fixed weights reach \([2-9] corners met\)\.",
        told,
    )
    assert "Newton" not in told
    facts = {"gap": 1e-12, "iterations": 1}
    one = replace(report, fitted=FittedMean(np.array([0.2, 0.3, 0.5]), facts))
    assert "that any weights reach (1 Newton step)." in words(one)
    pools = named_pools(["equal", "best_single", "simplex", "log_linear"])
    told = words(report_of(candidates=pools, method="log_linear", n_repeats=1))
    assert "above the lowest loss of its kind." in told


def test_rows_of_a_method_s_own_are_told() -> None:
    own = Candidate(Simplex(), "kl_all")
    told = words(report_of(candidates=[*YARDSTICKS, own], method=own.name, n_repeats=1))
    n_good = int((DATA.votes >= 4).sum())
    assert (
        f"of 40 patients; fitted on all rows, scored on rows of >= 4 votes ({n_good}). "
        "Method: simplex@kl_all. Certificate: at most " in told
    )
    assert "above the lowest KL that any weights reach on all rows (" in told
    own = Candidate(LogLinear(), "kl_10")
    told = words(report_of(candidates=[*YARDSTICKS, own], method=own.name, n_repeats=1))
    assert "above the lowest loss of its kind on rows of >= 10 votes." in told
    named = Fixed([0.2, 0.3, 0.5], "mine@home")
    told = words(report_of(candidates=[*YARDSTICKS, named], method=named.name, n_repeats=1))
    assert "patients; fitted and scored on rows of >= 4 votes" in told


def test_one_model_is_told(report: BlendReport) -> None:
    alone = report_of(DATA._replace(models=DATA.models[:1]), names=["a"], n_repeats=1)
    assert words(alone).startswith("Blend of 1 model on ")


def test_what_rounds_to_0_has_no_minus(report: BlendReport) -> None:
    first = report.nested.comparisons[0]
    nothing = Difference(-1e-7, -2e-7, 1e-7, 9, 3)
    differences = dict.fromkeys(first.differences, nothing)
    one = replace(first, differences=differences, fitted=nothing, bootstrap=nothing)
    rated = [replace(entry, nested=entry.in_sample - 1e-9) for entry in report.choice.rated]
    choice = replace(report.choice, rated=tuple(rated))
    nested = replace(report.nested, comparisons=(one,))
    told = words(replace(report, choice=choice, nested=nested))
    assert "-0.0000" not in told.replace("+-0.0000", "")
    assert (
        f"(000{report.best}): +0.0000, 95% interval +0.0000 to +0.0000 (bootstrap +0.0000 to "
        "+0.0000)." in told
    )


def test_weights_come_with_their_nested_range(report: BlendReport) -> None:
    told, weights, nested = words(report), report.weights, report.nested.weights
    assert weights is not None
    assert nested is not None
    lines = [
        f"{weights[n]:.4f} {nested[:, n].min():.2f}-{nested[:, n].max():.2f} {NAMES[n]}"
        for n in np.argsort(-weights)
    ]
    places = [told.index(line) for line in lines]
    assert places == sorted(places)
    assert "0001 *" in told
    assert "weight 0" not in told
    alone = replace(report, fitted=FittedMean(np.array([0.25, 0.75, 0.0])))
    assert "weight 0: 1 other model\n" in render_blend(alone)
    assert "Certificate" not in words(alone)


def test_comparisons_and_what_to_expect_are_told(report: BlendReport) -> None:
    told = words(report)
    in_sample, nested, equal = report.nested.comparisons
    found, drawn = in_sample.fitted, in_sample.bootstrap
    verdict = "a tie with" if found.tie else f"{in_sample.verdict} than"
    assert (
        f"It is {verdict} the best single model, chosen in sample (000{report.best}): "
        f"{found.mean:+.4f}, 95% interval {found.low:+.4f} to {found.high:+.4f} "
        f"(bootstrap {drawn.low:+.4f} to {drawn.high:+.4f})." in told
    )
    assert told.count(" equal weights: ") == 1
    assert "chosen on other patients:" not in told
    for title, comparison in (
        ("best single, in sample", in_sample),
        ("best single, nested", nested),
        ("equal weights", equal),
    ):
        cells = [title]
        for difference in comparison.differences.values():
            assert difference is not None
            half = (difference.high - difference.low) / 2
            cells.append(f"{difference.mean:+.4f}+-{half:.4f}" + " t" * difference.tie)
        assert " ".join(cells) in told
    expected = report.nested.interval
    assert (
        f"To expect on rows of >= 4 votes of new patients: {expected.mean:.4f}, 95% interval "
        f"{expected.low:.4f} to {expected.high:.4f} (bootstrap " in told
    )


def test_a_tier_of_one_patient_or_none_has_no_interval(report: BlendReport) -> None:
    nested = report.nested
    first = nested.comparisons[0]
    alone = {**first.differences, "kl_10": Difference(-0.01, -np.inf, np.inf, 9, 1)}
    told = replace(report, nested=replace(nested, comparisons=(replace(first, differences=alone),)))
    assert "-0.0100+-? t" in words(told)
    none = {**first.differences, "kl_10": None}
    told = replace(report, nested=replace(nested, comparisons=(replace(first, differences=none),)))
    line = next(
        line for line in render_blend(told).splitlines() if line.startswith("best single, in")
    )
    assert line.split()[-1] == "-"


@pytest.mark.parametrize(
    ("marks", "sentence", "legend"),
    [
        (
            (False, True, False),
            "checkpoints or weights of 1 of 3 models were chosen on the rows",
            True,
        ),
        # The optimistic one has no weight: nothing in the table is starred.
        (
            (False, False, True),
            "checkpoints or weights of 1 of 3 models were chosen on the rows",
            False,
        ),
        ((False, False, False), None, False),
    ],
)
def test_optimistic_models_are_told(
    report: BlendReport, marks: tuple[bool, ...], sentence: str | None, legend: bool
) -> None:
    fitted = FittedMean(np.array([0.25, 0.75, 0.0]))
    marked = replace(report, optimistic=marks, fitted=fitted)
    told = words(marked)
    assert ("Optimistic: " in told) == (sentence is not None)
    assert sentence is None or sentence in told
    assert ("* optimistic: its checkpoints or weights were" in told) == legend
    assert any(line.endswith(" *") for line in render_blend(marked).splitlines()) == legend


def test_long_names_are_cut(report: BlendReport) -> None:
    told = replace(report, names=tuple("x" * 120 + f"_{n}" for n in range(3)))
    lines = render_blend(told).splitlines()
    assert max(map(len, lines)) == 80
    assert next(line for line in lines if line.startswith("(x")).endswith(f"x_{report.best}):")
    table = [line for line in lines if line.startswith("0.") and "xxx_" in line]
    assert len(table) == 3
    assert all(len(line) <= 80 for line in table)
    assert {line.split()[2][-2:] for line in table} == {"_0", "_1", "_2"}
    assert [line.split()[2][-2:] for line in table if line.endswith(" *")] == ["_1"]


def test_a_choice_is_told_with_what_it_is_worth(chosen: BlendReport) -> None:
    told, worth = words(chosen), chosen.worth
    assert worth is not None
    assert f"Method: {chosen.method}, chosen by nested KL." in told
    names = [entry.name for entry in chosen.choice.rated]
    for best in (names.index(chosen.method), names.index("equal")):
        why = "the simplest within one standard error (=) of the best one, equal"
        if names[best] == chosen.method:
            why = "the best one, and no simpler one is within one standard error (=) of it"
        assert (
            f"{chosen.method}: chosen on the scored rows, {why}; its own nested figure is "
            "optimistic by what choosing gains."
        ) in words(replace(chosen, choice=replace(chosen.choice, best=best)))
    taken = ", ".join(f"{name} {count}" for name, count in worth.taken.items())
    assert (
        f"Choosing itself was tried on other patients: 5 choices, each by 1 splitting of the "
        f"others, took {taken}; the last table and the figures below are of choosing." in told
    )
    assert f"To expect on all rows of new patients: {worth.nested.mean:.4f}," in told
    lines = render_blend(chosen).splitlines()
    used = next(line for line in lines if line.startswith(">"))
    assert used.split()[:2] == [">=", chosen.method]
    assert "choosing, nested, minus KL all" in told
    assert told.count("(mean +- half of its paired 95% interval") == 2
    parts = render_blend(chosen).split("\n\n")
    beside = next(part for part in parts if "\nbest_single " in part).splitlines()
    for name in ("equal", "best_single", "simplex"):
        cells = next(line for line in beside if line.startswith(f"{name} ")).split()
        assert cells.count("-") == 1
    simplex = next(entry for entry in chosen.choice.rated if entry.name == "simplex")
    against = simplex.to_others["equal"]
    half = (against.high - against.low) / 2
    assert f"{against.mean:+.4f}+-{half:.4f}" in told
    assert told.count("simplex weights") >= 3


def test_ties_are_called_ties() -> None:
    same = DATA._replace(models=DATA.models[[0, 0]])
    told = words(report_of(same, names=["a", "b"]))
    assert told.count("It is a tie with") == 2
    assert "equal weights +0.0000+-0.0000 t +0.0000+-0.0000 t +0.0000+-0.0000 t" in told


def test_all_names_of_methods_fit_80_columns() -> None:
    names = all_pools()
    kept = {pool.name: pool for pool in named_pools(["equal", "best_single", "simplex"])}
    pools = [kept.get(name) or Fixed([0.2, 0.3, 0.5], name) for name in names]
    text = render_blend(report_of(candidates=pools, method=None, n_repeats=1))
    assert max(map(len, text.splitlines())) <= 80
    assert all(f" {name} " in text for name in names)
