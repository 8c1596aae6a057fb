"""Methods made of methods: recalibrated, averaged and stacked; fitted methods from JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field, PlainSerializer, PlainValidator, TypeAdapter, ValidationError

from hms_ray.competition.schema import N_CLASSES
from hms_ray.ensemble.methods.arithmetic import FittedMean
from hms_ray.ensemble.methods.base import FitRows, FittedMethod, Method, nested_predictions
from hms_ray.ensemble.methods.json_fields import FiniteArray, Number
from hms_ray.ensemble.methods.log_linear import FittedLogLinear
from hms_ray.ensemble.simplex import check_weights, simplex_weights
from hms_ray.errors import PredictionError
from hms_ray.evaluate.calibration import Recalibration, fit_recalibration
from hms_ray.evaluate.metric import Array

_SPLITS: Final = 5
_Member = Annotated[
    FittedMethod,
    PlainValidator(lambda data: fitted_from_json(data)),
    PlainSerializer(FittedMethod.to_json),
]


@dataclass(frozen=True)
class FittedRecalibrated(FittedMethod):
    """A fitted method whose class shares and confidence are corrected.

    Attributes:
        member: the method.
        biases: (6,) float64 of its correction; see ``Recalibration``.
        temperature: of its correction, above 0.
    """

    member: _Member
    biases: Annotated[Array, FiniteArray(N_CLASSES)]
    temperature: Annotated[Number, Field(gt=0)]
    form: ClassVar[str] = "recalibrated"

    def predict(self, probabilities: ArrayLike) -> Array:
        """See ``FittedMethod.predict``."""
        correction = Recalibration(self.biases, self.temperature)
        return correction.apply(self.member.predict(probabilities))


@dataclass(frozen=True)
class Recalibrated(Method):
    """A method, then class biases and a temperature fitted on its own blend."""

    member: Method

    @property
    def name(self) -> str:
        """The member's name and ``recalibrated``."""
        return f"{self.member.name}_recalibrated"

    @property
    def min_patients(self) -> int:
        """The member's."""
        return self.member.min_patients

    def fit_rows(self, rows: FitRows) -> FittedRecalibrated:
        """See ``Method.fit_rows``."""
        member = rows.fit(self.member)
        blended = member.predict(rows.models)
        found = fit_recalibration(rows.targets, blended, rows.weights)
        return FittedRecalibrated(member, found.biases, found.temperature)


@dataclass(frozen=True)
class FittedAverage(FittedMethod):
    """A weighted mean of the predictions of fitted methods.

    Attributes:
        members: K methods.
        weights: (K,) float64, at least 0, sum 1; members of weight 0 are not computed.
    """

    members: Annotated[tuple[_Member, ...], Field(min_length=1)]
    weights: Annotated[Array, FiniteArray(None)]
    form: ClassVar[str] = "average"

    def __post_init__(self) -> None:
        check_weights(self.weights, len(self.members))

    def predict(self, probabilities: ArrayLike) -> Array:
        """See ``FittedMethod.predict``."""
        blended: Array = np.sum(
            [
                weight * member.predict(probabilities)
                for member, weight in zip(self.members, self.weights, strict=True)
                if weight
            ],
            axis=0,
            dtype=np.float64,
        )
        return blended


@dataclass(frozen=True)
class Average(Method):
    """The mean of the predictions of several methods, each fitted on the same rows.

    KL is convex, so the average's KL is at most the mean of the members' KL.
    """

    members: Sequence[Method]
    name: str = "average"

    @property
    def min_patients(self) -> int:
        """The most that a member needs."""
        return max(member.min_patients for member in self.members)

    def fit_rows(self, rows: FitRows) -> FittedAverage:
        """See ``Method.fit_rows``."""
        members = tuple(rows.fit(member) for member in self.members)
        return FittedAverage(members, np.full(len(members), 1 / len(members)))


@dataclass(frozen=True)
class Stacked(Method):
    """Methods weighted by their predictions for patients that they were not fitted on.

    The super learner (van der Laan, Polley and Hubbard, Statistical Applications in
    Genetics and Molecular Biology 6, 2007): simplex weights of the members' nested
    predictions; then every member is fitted on all rows. Costs ``n_splits + 1`` fits per
    member.

    Attributes:
        members: the methods.
        n_splits: validation splits by patient, at most as many as there are patients.
        seed: of the splits.
    """

    members: Sequence[Method]
    n_splits: int = _SPLITS
    seed: int = 0
    name: str = "stacked"

    @property
    def min_patients(self) -> int:
        """One more than the members need, to validate them on."""
        return 1 + max(member.min_patients for member in self.members)

    def fit_rows(self, rows: FitRows) -> FittedAverage:
        """See ``Method.fit_rows``; patients are required."""
        validated = nested_predictions(self.members, rows, self.n_splits, self.seed, self.name)
        weights = simplex_weights(rows.targets, validated, rows.weights).weights
        return FittedAverage(tuple(rows.fit(member) for member in self.members), weights)


def fitted_from_json(data: Any) -> FittedMethod:
    """The fitted method that ``to_json`` described; it predicts exactly the same.

    Raises:
        PredictionError: an unknown form, or missing or invalid fields; ``where`` names the
            form and the forms around it.
    """
    kinds = (FittedMean, FittedLogLinear, FittedRecalibrated, FittedAverage)
    by_form: dict[Any, type[FittedMethod]] = {kind.form: kind for kind in kinds}
    form = data.get("form") if isinstance(data, dict) else None
    if not isinstance(form, str) or form not in by_form:
        raise PredictionError(
            f"a fitted method must be a mapping with a form of {', '.join(by_form)}",
            got=form or type(data).__name__,
        )
    try:
        return TypeAdapter(by_form[form]).validate_python(data)
    except PredictionError as error:
        place = f"form {form}" if error.where is None else f"{error.where} in form {form}"
        raise PredictionError(error.rule, got=error.got, where=place) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"]))
        raise PredictionError(
            f"{name} of a fitted method must be valid: {first['msg']}",
            got="none" if first["type"] == "missing" else first["input"],
            where=f"form {form}",
        ) from None
