import pickle

import pytest

from hms_ray.errors import ConfigError, DataError, Fault, FaultyDataError, HmsRayError


def test_message_has_rule_value_place_and_remedy() -> None:
    error = DataError("votes must not be negative", got=-1, where="train.csv", fix="Correct it.")
    assert str(error) == "votes must not be negative, got -1, in train.csv. Correct it."


def test_text_values_are_shown_without_quotes() -> None:
    assert str(ConfigError("a rule", got="no file")) == "a rule, got no file"


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("a rule", got=3, where="x.yaml", fix="Do this."),
        FaultyDataError([Fault("missing_file", "is missing", "a.parquet", "7")], where="data"),
    ],
)
def test_errors_survive_pickling(error: HmsRayError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.rule == error.rule


def test_faulty_data_error_has_all_faults_and_shows_the_first() -> None:
    faults = [Fault("missing_file", "is missing", f"{number}.parquet") for number in range(7)]
    error = FaultyDataError(faults, where="data")
    assert error.faults == tuple(faults)
    assert "7 found: 0.parquet: is missing" in str(error)
    assert "and 2 more, in data. List all of them with: hms-ray check DIR" in str(error)
