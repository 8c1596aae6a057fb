"""Several encoders, one head: the branches of a model, each with images of its own views."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from hms_ray.config.eeg_recipes import Count, Frozen
from hms_ray.config.import_path import is_import_path
from hms_ray.config.inputs import InputConfig, canonical_input, sound_view

Pooling = Literal["own", "avg", "max", "avgmax", "gem"]
_IMAGE_FIELDS: Final = ("views", "height", "size", "pad")
"""Fields of ``input`` that each branch has for itself."""


class BranchConfig(Frozen):
    """A timm model whose features are joined with those of the other branches."""

    views: Annotated[tuple[Annotated[str, AfterValidator(sound_view)], ...], Field(min_length=1)]
    """Views of the branch's image, as in ``input.views``."""
    height: Count | None = None
    """As ``input.height``, for this image."""
    size: tuple[Count, Count] | None = None
    """As ``input.size``, for this image."""
    pad: tuple[Count, Count] | None = None
    """As ``input.pad``, for this image."""
    name: str = "efficientnet_b0.ra_in1k"
    """A model of timm, as in ``model.name``."""
    pretrained: bool = True
    """Start from pretrained weights."""
    weights_file: str | None = None
    """As ``model.weights_file``, for this branch."""
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Stochastic depth of this branch."""
    pooling: Pooling = "own"
    """As ``model.pooling``, for this branch."""
    frozen: bool = False
    """Keep the pretrained weights and batch statistics as they are; without dropout."""

    @model_validator(mode="after")
    def _weights_are_those_of_timm(self) -> Self:
        if is_import_path(self.name):
            raise ValueError(
                f"name of a branch must be a model of timm, got {self.name}; build the whole model "
                "in one function instead: model.name"
            )
        for field, value in (("weights_file", self.weights_file), ("frozen", self.frozen)):
            if value and not self.pretrained:
                raise ValueError(f"{field} needs pretrained: true")
        return self


Branches = tuple[BranchConfig, ...]


def joint_input(config: InputConfig, branches: Branches | None) -> InputConfig:
    """The input with the views of all branches, for what depends on its sources only."""
    if branches is None:
        return config
    views = tuple(view for branch in branches for view in branch.views)
    return config.model_copy(update={"views": views})


def branch_inputs(config: InputConfig, branches: Branches | None) -> tuple[InputConfig, ...]:
    """The input of the image of each branch."""
    return tuple(
        config.model_copy(update={field: getattr(branch, field) for field in _IMAGE_FIELDS})
        for branch in branches or ()
    )


def branches_fault(config: InputConfig, branches: Branches | None) -> str | None:
    """Why an input does not fit branches, with the remedy; None if it does."""
    if branches is None:
        return None
    for field in _IMAGE_FIELDS:
        if getattr(config, field) != InputConfig.model_fields[field].default:
            return (
                f"input.{field} has no effect with model.branches, each of which has its own "
                f"{field}; set it there, and omit input.{field}"
            )
    for number, one in enumerate(branch_inputs(config, branches)):
        try:
            InputConfig.model_validate(one.model_dump())
        except ValidationError as error:
            text = error.errors()[0]["msg"].removeprefix("Value error, ")
            return f"model.branches.{number}: {text}"
    return None


def canonical_images(
    config: InputConfig, branches: Branches | None
) -> tuple[dict[str, Any], list[dict[str, Any]] | None]:
    """What changes images, as plain data: the input, and each branch if there are any.

    Recipes are numbered over all branches, and the paths of weights files are removed.
    """
    data = canonical_input(joint_input(config, branches))
    if branches is None:
        return data, None
    views = data.pop("views")
    for field in _IMAGE_FIELDS:
        data.pop(field, None)
    described = []
    for branch in branches:
        own, views = views[: len(branch.views)], views[len(branch.views) :]
        described.append({**branch.model_dump(mode="json", exclude={"weights_file"}), "views": own})
    return data, described
