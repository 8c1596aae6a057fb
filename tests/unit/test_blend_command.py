"""``hms-ray blend`` with several inputs, methods and constraints."""

from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest

from hms_ray.blend.fit_command import blend
from hms_ray.blend.settings import Settings, plan_blend
from hms_ray.cli import blend as command
from hms_ray.cli.main import main
from hms_ray.competition.rows import Unit
from hms_ray.competition.schema import PROBABILITY_COLUMNS
from hms_ray.config.space import Objective
from hms_ray.ensemble.methods.combined import fitted_from_json
from hms_ray.ensemble.methods.registry import all_methods, named_methods
from hms_ray.ensemble.report import blend_report
from hms_ray.errors import ConfigError, PredictionError, StudyError
from hms_ray.evaluate.calibration import nested_recalibration
from hms_ray.evaluate.oof import read_oof
from tests.blend_data import make_rows, member, stack, stored_blend, targets
from tests.refused import refusal


def blended(place: Path, name: str) -> np.ndarray:
    table = read_oof(place / f"oof_{name}.parquet", make_rows())
    return table[list(PROBABILITY_COLUMNS)].to_numpy()


def test_several_inputs_are_blended_beside_the_studies(
    results: Path, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["blend", "one", "two/0004", str(mine), "--results", str(results)]) == 0
    place = results / "blend"
    text = capsys.readouterr().out
    assert text.startswith(
        "Blend of 5 models: 60 rows of 12 patients, fitted and scored on rows with"
    )
    following = f"next: hms-ray submit {place} --data DIR --predictions mine=FILE "
    assert f"written to {place}\n{following}" in text
    found = stored_blend(place)
    assert "study" not in found
    names = [member["name"] for member in found["members"]]
    assert sorted(names[:3]) == ["one/0000", "one/0001", "one/0002"]
    assert names[3:] == ["two/0004", "mine"]
    assert found["members"][4] == {"name": "mine", "file": str(mine)}
    assert found["optimistic"] == ["one/0001"]
    method = fitted_from_json(found["fitted"])
    np.testing.assert_allclose(
        method.predict(stack(results, place)), blended(place, "in_sample"), atol=1e-12
    )
    assert not np.allclose(blended(place, "nested"), blended(place, "in_sample"))
    assert found["oof"] == {"nested": "oof_nested.parquet", "in_sample": "oof_in_sample.parquet"}


@pytest.mark.parametrize("method", ["log_linear_context", "simplex", "equal", "greedy"])
def test_a_stored_method_predicts_the_same_again(results: Path, mine: Path, method: str) -> None:
    settings = Settings(method=method, fit_on="kl_all", out=results / "here", n_splits=3)
    text = blend(["one", str(mine)], results, settings)
    found = stored_blend(results / "here")
    assert f"Method {method}: " in " ".join(text.split())
    assert found["method"] == method
    models = stack(results, results / "here")
    again = fitted_from_json(found["fitted"]).predict(models)
    np.testing.assert_allclose(again, blended(results / "here", "in_sample"), atol=1e-12)
    rows = make_rows()
    expected = blend_report(
        targets(rows), models, [member["name"] for member in found["members"]],
        rows["patient_id"], rows["total_votes"], n_splits=3, method=method, objective="kl_all",
        candidates=named_methods(["equal", "best_single", "simplex", method]),
    )  # fmt: skip
    np.testing.assert_allclose(
        blended(results / "here", "nested"), expected.nested.probabilities, atol=1e-9
    )
    assert found["nested"] == pytest.approx(expected.nested.scores, abs=1e-9)
    votes, patients = rows["total_votes"].to_numpy(), rows["patient_id"].to_numpy()
    for name, fewest in {"kl_all": 0, "kl_10": 10}.items():
        chosen = votes >= fewest
        known = targets(rows)[chosen], expected.nested.probabilities[chosen], patients[chosen]
        logs = np.log(nested_recalibration(*known))
        kl = (known[0] * (np.log(np.maximum(known[0], 1e-300)) - logs)).sum(axis=1).mean()
        assert found["nested_recalibrated"][name] == pytest.approx(kl)
        assert f"{kl:.4f}" in text
    assert found["in_sample"]["kl_all"] == pytest.approx(
        next(row["in_sample"] for row in found["methods"]["candidates"] if row["name"] == method)
    )
    assert (found["weights"] is None) == (method == "log_linear_context")
    assert set(found["nested_minus"]) == {
        *({"best_single_in_sample", "best_single", "simplex", "equal"} - {method})
    }  # fmt: skip
    if method != "log_linear_context":
        assert sum(found["weights"].values()) == pytest.approx(1)
    assert (
        "Optimistic: the checkpoints or weights of 1 of 4 models were chosen on the scored rows"
        in text
    )


def test_a_method_can_be_fitted_on_other_rows(results: Path) -> None:
    text = blend(["one"], results, Settings(method="simplex@kl_all", fit_on="kl_4"))
    found = stored_blend(results / "one" / "blend")
    assert "fitted on all rows, scored on rows with >= 4 votes (" in " ".join(text.split())
    assert (found["method"], found["fit_rows"]) == ("simplex@kl_all", "kl_4")
    own = found["weights"]
    blend(["one"], results, Settings(fit_on="kl_all"))
    assert stored_blend(results / "one" / "blend")["weights"] == pytest.approx(own)
    blend(["one"], results, Settings(fit_on="kl_4"))
    assert stored_blend(results / "one" / "blend")["weights"] != pytest.approx(own)


def test_auto_reports_the_nested_kl_of_the_choice(results: Path) -> None:
    settings = Settings(method="auto", fit_on="kl_all", n_splits=2)
    text = blend(["one"], results, settings)
    found = stored_blend(results / "one" / "blend")
    assert found["chosen_by_nested_kl"] is True
    assert found["method"] == found["methods"]["chosen"]
    assert found["nested"]["kl_all"] == pytest.approx(found["selection"]["nested"]["mean"])
    assert f"Method {found['method']}, chosen by nested KL: " in " ".join(text.split())
    assert len(found["methods"]["candidates"]) == 9


def test_optimistic_predictions_stay_marked_as_such_in_files(results: Path, mine: Path) -> None:
    """Also where it comes back as a file: a blend in sample, and an optimistic trial."""
    settings = Settings(targets="two", out=results / "first")
    blend([mine, "two"], results, settings)
    honest, fitted = (results / "first" / f"oof_{name}.parquet" for name in ("nested", "in_sample"))
    blend([honest, fitted, mine], results, Settings(targets="two", out=results / "again"))
    assert stored_blend(results / "again")["optimistic"] == ["oof_in_sample"]
    blend(["one"], results, Settings(out=results / "marked"))
    trials = results / "one" / "trials"
    files = [trials / "0000" / "oof.parquet", trials / "0001" / "oof.parquet"]
    files.append(results / "marked" / "oof_nested.parquet")
    text = blend(files, results, Settings(targets="one", out=results / "last"))
    marked = [str(trials / "0001" / "oof.parquet"), "oof_nested"]
    assert stored_blend(results / "last")["optimistic"] == marked
    warning = "Optimistic: the checkpoints or weights of 2 of 3 models were chosen on the scored"
    assert warning in " ".join(text.split())


def test_caps_and_fixed_weights_hold(results: Path, mine: Path) -> None:
    words = ["blend", "one", "two", str(mine), "--results", str(results), "--fit-on", "kl_all"]
    words += ["--family", "late=*/0004", "--family", "late=mine"]
    assert main([*words, "--max-family-weight", "late=0.25", "--fixed-weight", "one/0001=0.3"]) == 0
    found = stored_blend(results / "blend")
    weights = found["weights"]
    assert found["method"] == "simplex_constrained"
    assert weights["two/0004"] + weights["mine"] <= 0.25 + 1e-9
    assert weights["one/0001"] == pytest.approx(0.3)
    assert weights["two/0004"] + weights["mine"] > 0.25 - 1e-6
    assert found["nested_minus"]["simplex"]["verdict"] in ("tie", "worse")
    assert found["gap"] <= 1e-9


@pytest.mark.parametrize(
    ("settings", "rule", "got"),
    [
        (Settings(max_family_weights=["x=0.5"]), "needs one of one, two and a number", "x=0.5"),
        (Settings(max_family_weights=["one=2"]), "--max-family-weight FAMILY=W needs", "one=2"),
        (Settings(fixed_weights=["two/0004=-0.1"]), "a number from 0 to 1", "two/0004=-0.1"),
        (Settings(fixed_weights=["two/0004=nan"]), "a number from 0 to 1", "two/0004=nan"),
        (Settings(fixed_weights=["one/0001"]), "--fixed-weight MODEL=W needs", "one/0001"),
        (Settings(method="best"), "one of equal, best_single, greedy, ", "best"),
        (Settings(families=["x=one*"]), "--family needs --max-family-weight", "x=one*"),
        (Settings(method="simplex@kl_3"), "one of kl_all, kl_4, kl_10", "kl_3"),
        (
            Settings(method="auto", max_family_weights=["one=0.5"]),
            "a method, constraints on simplex weights, or published weights",
            "--method auto and --max-family-weight",
        ),
        (
            Settings(published="5_ensemble_fixed", fixed_weights=["one/0001=0.5"]),
            "a method, constraints on simplex weights, or published weights",
            "--fixed-weight and --published",
        ),
        (Settings(fixed_weights=["one/0001=0.7", "one/0002=0.7"]), "fixed weights", "1.4"),
        (Settings(published="none"), "an ensemble of fixed weights in the ladder", "none"),
        (Settings(cost="auto", tolerance=-1, subsets=True), "--tolerance must be", "-1"),
        (Settings(tolerance=np.inf, subsets=True), "a finite number of at least 0", "inf"),
        (Settings(tolerance=np.nan, subsets=True), "a finite number of at least 0", "nan"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    results: Path, settings: Settings, rule: str, got: str
) -> None:
    with refusal(PredictionError, rule, got=got):
        blend(["one", "two"], results, settings)
    assert not (results / "blend").exists()


def test_unwritable_folder_is_refused_before_anything_is_read(results: Path) -> None:
    (results / "taken").write_text("")
    with refusal(ConfigError, "writable folder", got="taken, which is a file"):
        blend(["no such study"], results, Settings(out=results / "taken" / "deep"))


@pytest.mark.parametrize(
    ("method", "names"),
    [
        ("greedy", ["equal", "best_single", "greedy", "simplex"]),
        ("simplex", ["equal", "best_single", "simplex"]),
        ("log_linear@kl_10", ["equal", "best_single", "simplex", "log_linear@kl_10"]),
        ("equal@kl_4", ["equal", "best_single", "simplex", "equal@kl_4"]),
    ],
)
def test_a_method_is_compared_with_the_baselines(method: str, names: list[str]) -> None:
    planned = plan_blend(Settings(method=method), [member("a"), member("b")])
    assert [candidate.name for candidate in planned.candidates] == names
    assert planned.method == method


def test_choices_in_the_help_are_those_of_the_package() -> None:
    assert list(all_methods()) == list(command.METHODS)
    assert get_args(Unit) == get_args(command.RowUnit)
    assert get_args(Objective) == get_args(command.Objective)


def test_negative_seed_is_refused(results: Path) -> None:
    with refusal(StudyError, "the seed must be at least 0", got="-1"):
        blend(["one"], results, Settings(seed=-1))


def test_dropped_rows_and_unknown_totals_are_reported(results: Path, mine: Path) -> None:
    table = pd.read_csv(mine)
    table[4:].to_csv(mine, index=False)
    rows = make_rows()
    known = rows.drop(columns=["row_id"]).assign(row_id=rows["row_id"], eeg_id=rows["eeg_id"])
    known["total_votes"] = known["total_votes"].astype("Int64")
    known.loc[50:, "total_votes"] = pd.NA
    known.to_parquet(mine.parent / "known.parquet")
    theirs = known.rename(columns={"total_votes": "n"})
    theirs.to_parquet(mine.parent / "theirs.parquet")
    table.to_csv(mine.parent / "same.csv", index=False)
    words = ["blend", str(mine), str(mine.parent / "same.csv"), "--out", str(results / "c")]
    words += ["--results", str(results), "--targets", str(mine.parent / "theirs.parquet")]
    words += ["--target-columns", "total_votes=n"]
    assert main([*words, "--rows", "same"]) == 2
    assert main([*words, "--rows", "common"]) == 0
    found = stored_blend(results / "c")
    assert found["rows"]["kl_all"] == 56
    assert found["fit_rows"] == "kl_all"
    settings = Settings(rows="common", targets=str(mine.parent / "known.parquet"))
    text = " ".join(blend([mine], results, settings).split())
    assert "Dropped 4 rows of" in text
    assert "10 rows have an unknown number of votes" in text


def test_the_fingerprint_is_that_of_the_rows(results: Path, mine: Path) -> None:
    blend(["one"], results)
    blend(["one/0001", "two"], results)
    one, both = stored_blend(results / "one" / "blend"), stored_blend(results / "blend")
    assert one["rows_fingerprint"] == both["rows_fingerprint"]
    table = pd.read_csv(mine)
    table[1:].to_csv(mine, index=False)
    blend(["one", mine], results, Settings(rows="common"))
    assert stored_blend(results / "blend")["rows_fingerprint"] != one["rows_fingerprint"]
