import logging
from types import SimpleNamespace

import pytest

from hms_ray.distributed import stray_groups
from hms_ray.distributed.stray_groups import StrayGroups


@pytest.mark.parametrize("error", [ImportError, AttributeError, TypeError])
def test_without_rays_private_calls_a_warning_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: type[Exception]
) -> None:
    n_looks = 0

    def find() -> list[object]:
        nonlocal n_looks
        n_looks += 1
        raise error("no such call")

    monkeypatch.setattr(stray_groups, "_find", find)
    stray = StrayGroups()
    with caplog.at_level(logging.WARNING, stray_groups.logger.name):
        assert [stray.remove(), stray.remove()] == [0, 0]
    assert n_looks == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "cannot be freed with ray" in caplog.text
    assert "run the same command again" in caplog.text


def row(
    creator: bytes = b"actor",
    *,
    dead: bool = True,
    job: bytes = b"\x01",
    state: int = 1,
    detached: bool = False,
) -> SimpleNamespace:
    return SimpleNamespace(
        creator_actor_id=creator,
        creator_actor_dead=dead,
        creator_job_id=job,
        is_detached=detached,
        state=state,
        placement_group_id=b"group",
    )


@pytest.mark.parametrize(
    ("found", "n_removed"),
    [
        (row(), 1),
        (row(dead=False), 0),
        (row(creator=b"\xff" * 4), 0),
        (row(job=b"\x02"), 0),
        (row(detached=True), 0),
        (row(state=0), 0),
    ],
)
def test_only_groups_of_this_job_with_a_dead_creator_are_removed(
    monkeypatch: pytest.MonkeyPatch, found: SimpleNamespace, n_removed: int
) -> None:
    import ray._raylet
    from ray._private import state
    from ray.core.generated import gcs_pb2

    table = SimpleNamespace(FromString=lambda raw: raw, REMOVED=0)
    accessor = SimpleNamespace(get_placement_group_table=lambda: [found])
    context = SimpleNamespace(get_job_id=lambda: "01")
    monkeypatch.setattr(gcs_pb2, "PlacementGroupTableData", table)
    monkeypatch.setattr(state, "state", SimpleNamespace(_connect_and_get_accessor=lambda: accessor))
    monkeypatch.setattr(ray._raylet, "PlacementGroupID", lambda binary: binary)
    monkeypatch.setattr(stray_groups.ray, "get_runtime_context", lambda: context)
    removed: list[object] = []
    monkeypatch.setattr(stray_groups, "PlacementGroup", lambda group: group)
    monkeypatch.setattr(stray_groups, "remove_placement_group", removed.append)
    assert StrayGroups().remove() == n_removed
    assert removed == [b"group"] * n_removed
