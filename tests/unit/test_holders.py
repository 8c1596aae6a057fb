"""What a waiting worker group says about who holds its resources."""

import pytest

from hms_ray.config.space import ResourcesConfig
from hms_ray.distributed import holders
from hms_ray.distributed.holders import Holders, describe, wait_reason


def test_free_amounts_and_holders_are_named() -> None:
    found = Holders(
        {"CPU": 8.0, "GPU": 2.0, "memory": 1e9},
        {"CPU": 1.0},
        {"this run": {"CPU": 4.0, "GPU": 1.0, "memory": 1e9}, "job 03": {"GPU": 0.5}},
        n_pending=1,
    )
    assert describe(found, ["CPU", "GPU"]) == (
        "1 of 8 CPUs free and 0 of 2 GPUs free; held by this run: 4 CPUs and 1 GPU; job 03: "
        "0.5 GPUs; tasks of other jobs, or what ends now: 3 CPUs and 0.5 GPUs"
    )
    assert describe(found, ["CPU"]).endswith(
        "this run: 4 CPUs; tasks of other jobs, or what ends now: 3 CPUs"
    )


def test_a_cluster_without_such_resources_has_no_holder() -> None:
    found = Holders({"CPU": 8.0}, {"CPU": 8.0}, {"this run": {"memory": 1.0}}, n_pending=1)
    assert describe(found, ["GPU"]) == "0 of 0 GPUs free"


def test_a_group_that_has_its_resources_waits_for_its_processes() -> None:
    found = Holders({"CPU": 8.0}, {}, {"this run": {"CPU": 8.0}}, n_pending=0)
    assert describe(found, ["CPU"]) == "its processes are being started"


def test_without_rays_tables_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Holders:
        raise AttributeError("no such table")

    monkeypatch.setattr(holders, "read_holders", fail)
    assert wait_reason(ResourcesConfig()) == ""


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("python other.py --password x", "python other.py, "),
        ("TOKEN=x python", "python, "),
        ("", ""),
    ],
)
def test_of_another_job_only_the_first_words_are_shown(command: str, shown: str) -> None:
    job = {"JobID": "03", "Entrypoint": command, "DriverPid": 7, "DriverIPAddress": "10.0.0.2"}
    assert holders._in_words(job) == f"job 03 ({shown}pid 7 on 10.0.0.2)"
