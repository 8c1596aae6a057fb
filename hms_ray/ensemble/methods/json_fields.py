"""Types of the fields of fitted methods, which pydantic checks when it reads their JSON."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from pydantic import Field, GetCoreSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from hms_ray.errors import PredictionError
from hms_ray.evaluate.metric import Array

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
"""A finite number; text and booleans are refused."""


class FiniteArray:
    """Annotation of an array field: finite float64 numbers, in JSON a list.

    Args:
        shape: size of each axis; None matches any size of at least 1.
    """

    def __init__(self, *shape: int | None) -> None:
        self._shape = shape

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """The check and the conversion to a list."""
        return core_schema.with_info_plain_validator_function(
            self._check,
            serialization=core_schema.plain_serializer_function_ser_schema(np.ndarray.tolist),
        )

    def _check(self, values: Any, info: ValidationInfo) -> Array:
        try:
            array = np.array(values, dtype=np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise PredictionError(
                f"{info.field_name} of a fitted method must be made of numbers", got=str(error)
            ) from None
        sizes = zip(array.shape, self._shape, strict=False)
        fits = array.ndim == len(self._shape) and all(
            size > 0 if expected is None else size == expected for size, expected in sizes
        )
        if not fits or not np.isfinite(array).all():
            expected = ", ".join("models" if size is None else str(size) for size in self._shape)
            raise PredictionError(
                f"{info.field_name} of a fitted method must be finite numbers of shape "
                f"({expected})",
                got="a number that is not finite" if fits else str(array.shape),
            )
        return array
