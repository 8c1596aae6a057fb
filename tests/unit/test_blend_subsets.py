"""Subsets of models and their costs in the report of ``hms-ray blend``."""

from pathlib import Path

import numpy as np
import pytest

from hms_ray.blend.fit_command import blend
from hms_ray.blend.settings import Settings
from hms_ray.ensemble.error_correlation import residual_correlation
from hms_ray.ensemble.model_subsets import SubsetSearch
from hms_ray.errors import PredictionError
from tests.blend_data import make_rows, stack, stored_blend, targets
from tests.refused import refusal


def column_of(text: str, title: str, position: int) -> list[str]:
    """A column of the table with a title."""
    lines = text.split(title)[1].split("\n\n")[0].splitlines()
    rule = next(number for number, line in enumerate(lines) if line.startswith("---"))
    return [line.split()[position] for line in lines[rule + 1 :]]


def test_subsets_of_models_are_reported(results: Path, mine: Path) -> None:
    costs = mine.parent / "costs.csv"
    costs.write_text("model,cost\nmine,5\n0000,1\n0001,1\n0002,2\n")
    settings = Settings(subsets=True, cost=str(costs), fit_on="kl_all", tolerance=0.01)
    with refusal(PredictionError, "every model needs a cost", got="none for one/000"):
        blend(["one", str(mine)], results, settings)
    text = blend(["one"], results, settings)
    sets = stored_blend(results / "one" / "blend")["sets"]
    assert sets["models"] == list(stored_blend(results / "one" / "blend")["weights"])
    rows = make_rows()
    models = stack(results, results / "one" / "blend")
    search = SubsetSearch.from_arrays(targets(rows), models, rows["patient_id"])
    assert sets["leave_one_out"] == [result.to_json() for result in search.leave_one_out()]
    correlation = residual_correlation(targets(rows), models)
    np.testing.assert_allclose(sets["residual_correlation"], correlation, atol=1e-12)
    first = int(np.argmin(correlation.sum(axis=1)))
    nearest = int(np.argmax(correlation[first] - 2 * np.eye(3)[first]))
    table = text.split("Correlation of errors (")[1]
    assert next(line for line in table.splitlines() if "0." in line).split() == [
        sets["models"][first],
        f"{(correlation[first].sum() - 1) / 2:.3f}",
        f"{correlation[first, nearest]:.3f}",
        sets["models"][nearest],
    ]
    ordered = sorted(search.leave_one_out(), key=lambda result: -result.nested.mean)
    names = [sets["models"][result.model] for result in ordered]
    assert column_of(text, "without each model", 0)[: len(names)] == names
    assert sets["forward_path"] == [step.to_json() for step in search.forward_path()]
    names = [sets["models"][step.members[-1]] for step in search.forward_path()]
    assert column_of(text, "Forward path", -1) == names
    assert len(names) > 1
    assert sets["minimal"] == {"tolerance": 0.01, **search.minimal(0.01).to_json()}
    assert (sets["chosen_on_the_scored_rows"], sets["splits"], sets["seed"]) == (True, 5, 0)
    assert (
        "Subsets are chosen on the rows that they are scored on, so their nested KL (weights "
        "fitted on other patients, one split into 5 groups) is optimistic."
    ) in " ".join(text.split())
    by_name = {"0000": 1.0, "0001": 1.0, "0002": 2.0}
    front = search.cost_front([by_name[name] for name in sets["models"]])
    assert sets["cost_front"] == [step.to_json() for step in front]
    for line in (
        "Simplex weights without each model: rise of the KL",
        "Forward path: each line adds the model that lowers the KL most",
        "Smallest subset, with an in-sample KL within 0.01 nats of that of all models.",
        "KL against cost (from costs.csv)",
    ):
        assert line in text


def test_long_names_in_subsets_are_numbered(results: Path, mine: Path) -> None:
    long = mine.with_name("a_model_of_a_name_that_would_not_fit_beside_others.csv")
    long.write_text(mine.read_text())
    costs = mine.parent / "costs.csv"
    costs.write_text(f"model,cost\n{long.stem},5\n" + "".join(f"one/000{n},1\n" for n in range(3)))
    settings = Settings(subsets=True, cost=str(costs), tolerance=0.0)
    text = blend(["one", str(long)], results, settings)
    legend = [line for line in text.splitlines() if line.startswith("4 = ")]
    assert legend == [f"4 = {long.stem}"]
    longer = [mine.with_name("x" * 90 + end).with_suffix(".csv") for end in ("_one", "_two")]
    for path in longer:
        path.write_text(mine.read_text())
    lines = blend(["two", *longer], results, Settings(subsets=True)).splitlines()
    legend = [line for line in lines if line.startswith(("2 = x", "3 = x"))]
    assert [line[-4:] for line in legend] == ["_one", "_two"]
    blend(["one", str(long)], results, settings)
    sets = stored_blend(results / "blend")["sets"]
    members = " + ".join(str(n + 1) for n in sets["minimal"]["members"])
    lines = text.split("within 0 nats")[1].splitlines()
    assert any(line.endswith(f"  {members}") for line in lines)


def test_missing_costs_are_refused_before_anything_is_fitted(
    results: Path, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fitted(*_: object, **__: object) -> None:
        raise AssertionError("a blend was fitted")

    monkeypatch.setattr("hms_ray.blend.fit_command.blend_report", fitted)
    with refusal(PredictionError, "--subsets needs at least two models", got="0001"):
        blend(["one/0001"], results, Settings(subsets=True))
    with refusal(PredictionError, "every model needs a cost", got="mine", fix="--cost FILE"):
        blend(["one", str(mine)], results, Settings(cost="auto"))


def test_costs_are_minutes_of_training(results: Path) -> None:
    text = blend(["one"], results, Settings(cost="auto"))
    assert "KL against cost (minutes of training): no subset is both cheaper and better." in text
    assert "without each model" not in text
