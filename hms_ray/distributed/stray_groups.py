"""Placement groups whose creator is dead: their resources would be held until the run ends.

Ray's own cleaner needs the state API, which a Ray without a dashboard lacks, and a group that was
created between a controller's start and its workers' is never freed. This uses calls that Ray
does not publish; in a version without them nothing is removed, with one warning.
"""

from __future__ import annotations

import logging
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group

logger = logging.getLogger(__name__)


class StrayGroups:
    """Finds and removes placement groups of this job whose creator actor is dead."""

    def __init__(self) -> None:
        self._available = True

    def remove(self) -> int:
        """Removes them; returns how many there were."""
        if not self._available:
            return 0
        try:
            found = _find()
        except (ImportError, AttributeError, TypeError) as error:
            self._available = False
            logger.warning(
                "resources of lost worker groups cannot be freed with ray %s (%s); if a run "
                "stops after a loss, end it and run the same command again",
                ray.__version__,
                error,
            )
            return 0
        for group in found:
            remove_placement_group(group)
        return len(found)


def _find() -> list[PlacementGroup]:
    from ray._private.state import state
    from ray._raylet import PlacementGroupID
    from ray.core.generated import gcs_pb2

    job = ray.get_runtime_context().get_job_id()
    table: Any = gcs_pb2.PlacementGroupTableData
    found = []
    for raw in state._connect_and_get_accessor().get_placement_group_table():
        data = table.FromString(raw)
        # Tune's own groups have no creator actor: its id is all ones.
        by_actor = data.creator_actor_id.strip(b"\xff") != b""
        if (
            by_actor
            and data.creator_actor_dead
            and not data.is_detached
            and data.state != table.REMOVED
            and data.creator_job_id.hex() == job
        ):
            found.append(PlacementGroup(PlacementGroupID(data.placement_group_id)))
    return found
