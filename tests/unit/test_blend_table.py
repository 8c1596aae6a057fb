"""The text of a blend's report."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hms_ray.display.blend_table import render_blend
from hms_ray.ensemble.constrained import Cap
from hms_ray.ensemble.cross_validation import Candidate
from hms_ray.ensemble.methods.arithmetic import FittedMean, Fixed, Simplex
from hms_ray.ensemble.methods.log_linear import LogLinear
from hms_ray.ensemble.methods.registry import named_methods
from hms_ray.ensemble.report import blend_report
from hms_ray.ensemble.result import BASELINES, BlendReport
from hms_ray.evaluate.intervals import Difference
from tests.ensemble_data import EnsembleSample, ensemble_sample

NAMES = ("0000", "0001", "0002")
DATA = ensemble_sample(3, alike=True)
METHODS = named_methods(["equal", "best_single", "simplex", "log_linear"])


def report_of(data: EnsembleSample = DATA, **changes: Any) -> BlendReport:
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
    return report_of(candidates=METHODS, method=None, objective="kl_all")


def text_of(report: BlendReport) -> str:
    """The text without line breaks."""
    return " ".join(render_blend(report, width=200).split())


def row_of(report: BlendReport, title: str, name: str) -> list[str]:
    """Cells of one row of a table, from the table's title."""
    part = next(part for part in render_blend(report, 200).split("\n\n") if part.startswith(title))
    line = next(line for line in part.splitlines() if line.startswith(f"{name} "))
    return re.split(r"\s{2,}", line)


def difference_of(difference: Difference) -> str:
    mean, low, high = (f"{end:+.4f}" for end in (difference.mean, difference.low, difference.high))
    return f"{mean} [{low}, {high}] {difference.verdict}"


def test_heading_and_methods(report: BlendReport) -> None:
    text = text_of(report)
    n_rows, n_good = len(DATA.votes), int((DATA.votes >= 4).sum())
    assert text.startswith(
        f"Blend of 3 models: {n_rows} rows of 40 patients, fitted and scored on rows with >= 4 "
        f"votes ({n_good}). Method simplex: estimated out-of-sample KL >=4 "
    )
    fit = report.fitted
    assert isinstance(fit, FittedMean)
    assert (
        f"Certificate: at most {fit.facts['gap']:.1e} above the lowest KL of any weights "
        f"({int(fit.facts['iterations'])} Newton steps)." in text
    )
    for entry in report.selection.candidates:
        others = [entry.by_objective[name] for name in ("kl_all", "kl_10")]
        shown = (entry.in_sample, entry.nested, abs(entry.optimism), *others)
        cells = row_of(report, "Methods, KL >=4", entry.name)
        assert [cell for cell in cells if re.fullmatch(r"\d\.\d{4}", cell)] == [
            f"{figure:.4f}" for figure in shown
        ]
        assert ("used" in cells) == (entry.name == "simplex")
    assert "5 splits, mean of 2 repeats" in text
    # Only a choice uses the rule of one standard error, and compares every method.
    assert "within 1 SE" not in text
    assert "Methods against alternatives" not in text


def test_certificate_names_the_weights_that_it_covers(report: BlendReport) -> None:
    bounded = Simplex(caps=[Cap([0], 0.2)], name="bounded")
    text = text_of(report_of(candidates=[*BASELINES, bounded], method="bounded", n_repeats=1))
    assert re.search(
        r"at most \d\.\de-\d\d above the lowest KL of weights that satisfy the family limits "
        r"and fixed weights "
        r"\([2-9] corners\)\.",
        text,
    )
    assert "Newton" not in text
    facts = {"gap": 1e-12, "iterations": 1}
    one = replace(report, fitted=FittedMean(np.array([0.2, 0.3, 0.5]), facts))
    assert "of any weights (1 Newton step)." in text_of(one)
    text = text_of(report_of(candidates=METHODS, method="log_linear", n_repeats=1))
    assert "above the lowest value of the method's loss." in text


def test_rows_of_the_method_itself_are_named() -> None:
    own = Candidate(Simplex(), "kl_all")
    text = text_of(report_of(candidates=[*BASELINES, own], method=own.name, n_repeats=1))
    n_good = int((DATA.votes >= 4).sum())
    assert f"40 patients, fitted on all rows, scored on rows with >= 4 votes ({n_good})." in text
    assert "Method simplex@kl_all: " in text
    assert "above the lowest KL of any weights on all rows (" in text
    own = Candidate(LogLinear(), "kl_10")
    text = text_of(report_of(candidates=[*BASELINES, own], method=own.name, n_repeats=1))
    assert "value of the method's loss on rows with >= 10 votes." in text
    named = Fixed([0.2, 0.3, 0.5], "mine@home")
    text = text_of(report_of(candidates=[*BASELINES, named], method=named.name, n_repeats=1))
    assert "patients, fitted and scored on rows with >= 4 votes" in text


def test_single_model_has_a_report(report: BlendReport) -> None:
    alone = report_of(DATA._replace(models=DATA.models[:1]), names=["a"], n_repeats=1)
    text = text_of(alone)
    assert text.startswith("Blend of 1 model: ")
    assert "Use a alone" in text


def test_zero_has_no_minus_sign(report: BlendReport) -> None:
    first = report.nested.comparisons[0]
    nothing = Difference(-1e-7, -2e-7, 1e-7, 9, 3)
    differences = dict.fromkeys(first.differences, nothing)
    one = replace(first, differences=differences, fitted=nothing, bootstrap=nothing)
    rated = [replace(entry, nested=entry.in_sample - 1e-9) for entry in report.selection.candidates]
    choice = replace(report.selection, candidates=tuple(rated))
    nested = replace(report.nested, comparisons=(one,))
    text = text_of(replace(report, selection=choice, nested=nested))
    assert "-0.0000" not in text
    assert f"the best single model, 000{report.best}: +0.0000 [+0.0000, +0.0000] tie." in text


def test_weights_come_with_their_nested_range(report: BlendReport) -> None:
    weights, nested = report.weights, report.nested.weights
    assert weights is not None
    assert nested is not None
    text = text_of(report)
    lines = [
        f"{NAMES[n]}{' *' if n == 1 else ''} {weights[n]:.4f} "
        f"{nested[:, n].min():.2f} to {nested[:, n].max():.2f}"
        for n in np.argsort(-weights)
    ]
    places = [text.index(line) for line in lines]
    assert places == sorted(places)
    assert "weight 0" not in text
    alone = replace(report, fitted=FittedMean(np.array([0.25, 0.75, 0.0])))
    assert "1 other model: weight 0." in text_of(alone)
    assert "Certificate" not in text_of(alone)


def test_verdict_comes_before_the_tables(report: BlendReport) -> None:
    verdict, tables = text_of(report).split("Weights model", 1)
    in_sample, nested, equal = report.nested.comparisons
    for one, name in ((in_sample, f"the best single model, 000{report.best}"), (equal, "equal")):
        assert f"Against {name}" in verdict
        assert f"{difference_of(one.fitted)}." in verdict
    expected = report.nested.interval
    assert (
        f"out-of-sample KL >=4 {expected.mean:.4f} [{expected.low:.4f}, {expected.high:.4f}]."
        in verdict
    )
    drawn = report.nested.bootstrap
    assert f"of the estimate itself: [{drawn.low:.4f}, {drawn.high:.4f}]." in tables
    title = "simplex against alternatives"
    for name, comparison in (
        ("best single model, chosen in sample", in_sample),
        ("best single model, nested", nested),
        ("equal weights", equal),
    ):
        known = [one for one in comparison.differences.values() if one is not None]
        drawn = comparison.bootstrap
        assert row_of(report, title, name) == [
            name,
            *map(difference_of, known),
            f"[{drawn.low:+.4f}, {drawn.high:+.4f}]",
        ]


TIE, BETTER, WORSE = (Difference(mean, mean - 0.1, mean + 0.1, 9, 3) for mean in (0.0, -0.2, 0.2))


@pytest.mark.parametrize(
    ("in_sample", "nested", "equal", "advice"),
    [
        (BETTER, BETTER, BETTER, "Use this blend."),
        (WORSE, BETTER, BETTER, "Use {best} alone."),
        (TIE, TIE, BETTER, "Use {best} alone: it is simpler"),
        (TIE, BETTER, BETTER, "Use this blend."),
        (BETTER, BETTER, TIE, "Equal weights (--method equal) are simpler"),
        (BETTER, BETTER, WORSE, "Use equal weights (--method equal)."),
    ],
)
def test_verdict_recommends_the_simplest_of_ties(
    report: BlendReport,
    in_sample: Difference,
    nested: Difference,
    equal: Difference,
    advice: str,
) -> None:
    comparisons = tuple(
        replace(one, fitted=fitted)
        for one, fitted in zip(report.nested.comparisons, (in_sample, nested, equal), strict=True)
    )
    changed = replace(report, nested=replace(report.nested, comparisons=comparisons))
    assert advice.format(best=NAMES[report.best]) in text_of(changed)


def test_score_of_one_patient_or_none_has_no_interval(report: BlendReport) -> None:
    nested = report.nested
    first = nested.comparisons[0]
    for difference, cell in (
        (Difference(-0.01, -np.inf, np.inf, 9, 1), "-0.0100 [no interval] tie"),
        (None, "-"),
    ):
        one = replace(first, differences={**first.differences, "kl_10": difference})
        changed = replace(report, nested=replace(nested, comparisons=(one,)))
        name = "best single model, chosen in sample"
        assert row_of(changed, "simplex against", name)[3] == cell


@pytest.mark.parametrize(
    ("marks", "legend"),
    [
        ((False, True, False), True),
        # The optimistic one has no weight: nothing in the table is marked.
        ((False, False, True), False),
        ((False, False, False), False),
    ],
)
def test_optimistic_models_are_marked(
    report: BlendReport, marks: tuple[bool, ...], legend: bool
) -> None:
    fitted = FittedMean(np.array([0.25, 0.75, 0.0]))
    text = text_of(replace(report, optimistic=marks, fitted=fitted))
    sentence = "Optimistic: the checkpoints or weights of 1 of 3 models were chosen on the scored"
    assert (sentence in text) == any(marks)
    assert ("* optimistic: its checkpoints or weights were" in text) == legend
    assert ("0001 * 0.7500" in text) == legend


def test_choice_includes_its_estimate(chosen: BlendReport) -> None:
    text, estimate = text_of(chosen), chosen.selection_estimate
    assert estimate is not None
    assert f"Method {chosen.method}, chosen by nested KL: estimated out-of-sample KL all" in text
    assert f"KL all {estimate.nested.mean:.4f} [" in text
    names = [entry.name for entry in chosen.selection.candidates]
    for best in (names.index(chosen.method), names.index("equal")):
        why = "the simplest method within one standard error of the best, equal."
        if names[best] == chosen.method:
            why = "the best method, and no simpler one is within one standard error of it."
        changed = replace(chosen, selection=replace(chosen.selection, best=best))
        assert f"{chosen.method} is {why} It was chosen on the scored rows" in text_of(changed)
    taken = ", ".join(f"{name} {count}" for name, count in estimate.times_chosen.items())
    assert f"repeat the choice on other patients, 5 times: {taken}." in text
    assert row_of(chosen, "Methods, KL all", chosen.method)[1] == "used"
    for entry in chosen.selection.candidates:
        cells = row_of(chosen, "Methods against alternatives", entry.name)
        assert cells[1:] == [
            "-" if name == entry.name else difference_of(entry.minus_others[name])
            for name in ("best_single", "equal", "simplex")
        ]
    assert len(row_of(chosen, "The chosen method against", "simplex weights")) == 5


def test_equal_models_are_ties() -> None:
    same = DATA._replace(models=DATA.models[[0, 0]])
    text = text_of(report_of(same, names=["a", "b"]))
    assert text.count("+0.0000 [+0.0000, +0.0000] tie. ") == 2
    assert "equal weights" + 3 * " +0.0000 [+0.0000, +0.0000] tie" in text


@pytest.mark.parametrize("width", [80, 120])
def test_long_names_are_wrapped_and_not_cut(report: BlendReport, width: int) -> None:
    names = tuple("x" * 120 + f"_{n}" for n in range(3))
    text = render_blend(replace(report, names=names), width)
    assert max(map(len, text.splitlines())) <= width
    weights = text[text.index("Weights\n") :].split("\n\nMethods")[0]
    folded = "".join(re.findall(r"^[x_\d]+", weights, re.MULTILINE))
    assert all(name in folded for name in names)
