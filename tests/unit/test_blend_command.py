"""``hms-ray blend`` with several inputs, methods and constraints."""

from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest

from hms_ray.blend.fit_command import blend
from hms_ray.blend.settings import Settings, plan
from hms_ray.cli import blend as command
from hms_ray.cli.main import main
from hms_ray.competition.rows import Unit
from hms_ray.competition.schema import PROBABILITY_COLUMNS
from hms_ray.config.space import Objective
from hms_ray.ensemble.methods.registry import all_methods, fitted_from_json, named_methods
from hms_ray.ensemble.report import blend_report
from hms_ray.errors import ConfigError, PredictionError, StudyError
from hms_ray.evaluate.oof import read_oof
from tests.blend_data import make_file, make_results, make_rows, member, stack, targets, told


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return make_results(tmp_path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return make_file(tmp_path)


def blended(place: Path, name: str) -> np.ndarray:
    table = read_oof(place / f"oof_{name}.parquet", make_rows())
    return table[list(PROBABILITY_COLUMNS)].to_numpy()


def test_several_inputs_are_blended_beside_the_studies(
    results: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["blend", "one", "two/0004", str(file), "--results", str(results)]) == 0
    place = results / "blend"
    text = capsys.readouterr().out
    assert text.startswith(
        "Blend of 5 models: 60 rows of 12 patients, fitted and scored on rows with"
    )
    assert f"written to {place}\nnext: hms-ray submit {place} --data DIR" in text
    found = told(place)
    assert "study" not in found
    names = [member["name"] for member in found["members"]]
    assert sorted(names[:3]) == ["one/0000", "one/0001", "one/0002"]
    assert names[3:] == ["two/0004", "mine"]
    assert found["members"][4] == {"name": "mine", "file": str(file)}
    assert found["optimistic"] == ["one/0001"]
    method = fitted_from_json(found["fitted"])
    np.testing.assert_allclose(
        method.predict(stack(results, place)), blended(place, "in_sample"), atol=1e-12
    )
    assert not np.allclose(blended(place, "nested"), blended(place, "in_sample"))
    assert found["oof"] == {"nested": "oof_nested.parquet", "in_sample": "oof_in_sample.parquet"}


@pytest.mark.parametrize("method", ["log_linear_context", "simplex", "equal", "greedy"])
def test_a_method_is_rated_kept_and_found_again(results: Path, file: Path, method: str) -> None:
    settings = Settings(method=method, fit_on="kl_all", out=results / "here", n_splits=3)
    text = blend(["one", str(file)], results, settings)
    found = told(results / "here")
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


def test_a_method_may_have_rows_of_its_own(results: Path) -> None:
    text = blend(["one"], results, Settings(method="simplex@kl_all", fit_on="kl_4"))
    found = told(results / "one" / "blend")
    assert "fitted on all rows, scored on rows with >= 4 votes (" in " ".join(text.split())
    assert (found["method"], found["fit_rows"]) == ("simplex@kl_all", "kl_4")
    own = found["weights"]
    blend(["one"], results, Settings(fit_on="kl_all"))
    assert told(results / "one" / "blend")["weights"] == pytest.approx(own)
    blend(["one"], results, Settings(fit_on="kl_4"))
    assert told(results / "one" / "blend")["weights"] != pytest.approx(own)


def test_auto_tells_what_choosing_is_worth(results: Path) -> None:
    settings = Settings(method="auto", fit_on="kl_all", n_splits=2)
    text = blend(["one"], results, settings)
    found = told(results / "one" / "blend")
    assert found["chosen_by_nested_kl"] is True
    assert found["method"] == found["methods"]["chosen"]
    assert found["nested"]["kl_all"] == pytest.approx(found["selection"]["nested"]["mean"])
    assert f"Method {found['method']}, chosen by nested KL: " in " ".join(text.split())
    assert len(found["methods"]["candidates"]) == 9


def test_what_was_chosen_on_the_rows_stays_marked(results: Path, file: Path) -> None:
    """Also where it comes back as a file: a blend in sample, and an optimistic trial."""
    settings = Settings(targets="two", out=results / "first")
    blend([file, "two"], results, settings)
    honest, fitted = (results / "first" / f"oof_{name}.parquet" for name in ("nested", "in_sample"))
    blend([honest, fitted, file], results, Settings(targets="two", out=results / "again"))
    assert told(results / "again")["optimistic"] == ["oof_in_sample"]
    blend(["one"], results, Settings(out=results / "marked"))
    trials = results / "one" / "trials"
    files = [trials / "0000" / "oof.parquet", trials / "0001" / "oof.parquet"]
    files.append(results / "marked" / "oof_nested.parquet")
    text = blend(files, results, Settings(targets="one", out=results / "last"))
    marked = [str(trials / "0001" / "oof.parquet"), "oof_nested"]
    assert told(results / "last")["optimistic"] == marked
    told_so = "Optimistic: the checkpoints or weights of 2 of 3 models were chosen on the scored"
    assert told_so in " ".join(text.split())


def test_caps_and_fixed_weights_hold(results: Path, file: Path) -> None:
    words = ["blend", "one", "two", str(file), "--results", str(results), "--fit-on", "kl_all"]
    words += ["--family", "late=*/0004", "--family", "late=mine"]
    assert main([*words, "--max-family-weight", "late=0.25", "--fixed-weight", "one/0001=0.3"]) == 0
    found = told(results / "blend")
    weights = found["weights"]
    assert found["method"] == "simplex_constrained"
    assert weights["two/0004"] + weights["mine"] <= 0.25 + 1e-9
    assert weights["one/0001"] == pytest.approx(0.3)
    assert weights["two/0004"] + weights["mine"] > 0.25 - 1e-6
    assert found["nested_minus"]["simplex"]["verdict"] in ("tie", "worse")
    assert found["gap"] <= 1e-9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            Settings(caps=["x=0.5"]),
            (
                r"--max-family-weight FAMILY=W needs one of one, two and a number from 0 to 1,"
                r" got x=0\.5$"
            ),
        ),
        (Settings(caps=["one=2"]), r"--max-family-weight FAMILY=W needs .*, got one=2$"),
        (Settings(fixed=["two/0004=-0.1"]), r"a number from 0 to 1, got two/0004=-0\.1$"),
        (Settings(fixed=["two/0004=nan"]), r"a number from 0 to 1, got two/0004=nan$"),
        (
            Settings(fixed=["one/0001"]),
            (
                r"--fixed-weight MODEL=W needs one of one/000\d, .*, two/0004 and a "
                r"number from 0 to 1, got one/0001$"
            ),
        ),
        (
            Settings(method="best"),
            r"a method must be one of equal, best_single, greedy, .*, got best$",
        ),
        (
            Settings(families=["x=one*"]),
            r"--family needs --max-family-weight, got --family x=one\* alone$",
        ),
        (
            Settings(method="simplex@kl_3"),
            r"the rows after @ in --method must be one of kl_all, kl_4, kl_10, got kl_3$",
        ),
        (
            Settings(method="auto", caps=["one=0.5"]),
            (
                r"a blend is made in one way: caps and fixed "
                r"weights are those of the simplex, and a recipe has its own, got --method auto "
                r"with --max-family-weight or --fixed-weight$"
            ),
        ),
        (
            Settings(fixed=["one/0001=0.7", "one/0002=0.7"]),
            r"infeasible constraints: .*, got fixed weights of sum 1\.4",
        ),
        (
            Settings(recipe="none"),
            (
                r"a recipe must be a published ensemble of fixed weights, got "
                r"none\. There is no manifest\.$"
            ),
        ),
        (
            Settings(cost="auto", tolerance=-1, sets=True),
            r"a tolerance must be a finite number of at least 0, got -1$",
        ),
        (Settings(tolerance=np.inf, sets=True), r"must be a finite number of at least 0, got inf$"),
        (Settings(tolerance=np.nan, sets=True), r"must be a finite number of at least 0, got nan$"),
    ],
)
def test_settings_that_do_not_fit_are_told(results: Path, settings: Settings, message: str) -> None:
    with pytest.raises(PredictionError, match=message):
        blend(["one", "two"], results, settings)
    assert not (results / "blend").exists()


def test_a_place_that_cannot_be_written_is_told_before_anything_is_read(results: Path) -> None:
    (results / "taken").write_text("")
    with pytest.raises(ConfigError, match=r"writable folder, got .*taken, which is a file$"):
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
def test_a_method_is_rated_next_to_the_baselines(method: str, names: list[str]) -> None:
    planned = plan(Settings(method=method), [member("a"), member("b")])
    assert [candidate.name for candidate in planned.candidates] == names
    assert planned.method == method


def test_choices_in_the_help_are_those_of_the_package() -> None:
    assert list(all_methods()) == list(command.METHODS)
    assert get_args(Unit) == get_args(command.RowUnit)
    assert get_args(Objective) == get_args(command.Objective)


def test_negative_seed_is_refused(results: Path) -> None:
    with pytest.raises(StudyError, match="a seed must be at least 0, got -1"):
        blend(["one"], results, Settings(seed=-1))


def test_common_rows_and_unknown_totals_are_told(results: Path, file: Path) -> None:
    table = pd.read_csv(file)
    table[4:].to_csv(file, index=False)
    rows = make_rows()
    known = rows.drop(columns=["row_id"]).assign(row_id=rows["row_id"], eeg_id=rows["eeg_id"])
    known["total_votes"] = known["total_votes"].astype("Int64")
    known.loc[50:, "total_votes"] = pd.NA
    known.to_parquet(file.parent / "known.parquet")
    theirs = known.rename(columns={"total_votes": "n"})
    theirs.to_parquet(file.parent / "theirs.parquet")
    words = ["blend", str(file), str(file.parent / "same.csv"), "--out", str(results / "c")]
    table.to_csv(file.parent / "same.csv", index=False)
    words += ["--results", str(results), "--targets", str(file.parent / "theirs.parquet")]
    words += ["--target-columns", "total_votes=n"]
    assert main([*words, "--rows", "same"]) == 2
    assert main([*words, "--rows", "common"]) == 0
    found = told(results / "c")
    assert found["rows"]["kl_all"] == 56
    assert found["fit_rows"] == "kl_all"
    settings = Settings(rows="common", targets=str(file.parent / "known.parquet"))
    text = " ".join(blend([file], results, settings).split())
    assert "Left out: 4 rows of" in text
    assert "10 rows have no known total of votes and count as rows of few." in text


def test_the_fingerprint_is_that_of_the_rows(results: Path, file: Path) -> None:
    blend(["one"], results)
    blend(["one/0001", "two"], results)
    one, both = told(results / "one" / "blend"), told(results / "blend")
    assert one["rows_fingerprint"] == both["rows_fingerprint"]
    table = pd.read_csv(file)
    table[1:].to_csv(file, index=False)
    blend(["one", file], results, Settings(rows="common"))
    assert told(results / "blend")["rows_fingerprint"] != one["rows_fingerprint"]
