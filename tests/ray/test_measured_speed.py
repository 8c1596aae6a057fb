"""A bench on nodes of a cluster, in several processes that wait for each other."""

import pytest

from hms_ray.config.space import ResourcesConfig
from hms_ray.dataset.prepare import Prepared
from hms_ray.distributed.bench_tasks import measure_on_cluster
from hms_ray.distributed.cluster import Cluster
from hms_ray.errors import ModelError
from hms_ray.experiment.bench import BenchJob
from hms_ray.train.local_groups import LocalGroups
from hms_ray.train.speed import REPETITIONS
from tests.ray.worker_groups import EXPERIMENT

pytestmark = pytest.mark.ray


def test_groups_of_a_node_are_measured_at_the_same_time(
    connected: Cluster, two_folds: Prepared
) -> None:
    fitting = int(connected.cpus)
    for workers in (1, fitting):
        job = BenchJob((EXPERIMENT,), two_folds, ResourcesConfig(workers=workers))
        (speed,), slots = measure_on_cluster(job, address="auto")
        assert slots == speed.n_groups == fitting // workers
        assert (speed.workers, speed.n_machines, speed.local) == (workers, 1, False)
        (fold,) = speed.speeds
        # Several ranks prepare their all-reduces anew after each evaluation.
        assert (max(fold.restart_s) > 0) is (workers > 1)
        assert fold.save_s > 0
        for kind in fold.epochs.values():
            assert len(kind.later_s) == REPETITIONS * speed.n_groups
            assert min(kind.later_s) > 0


def fail_in_first(process, wait) -> None:
    wait("start")
    if process.rank == 0:
        raise ModelError("a fault of a process", fix="None.")
    wait("never reached")


@pytest.mark.parametrize("groups", [LocalGroups(n_groups=1, workers=2)])
def test_fault_of_one_process_ends_all(groups: LocalGroups) -> None:
    with pytest.raises(ModelError, match="a fault of a process"):
        groups.run(fail_in_first)


def test_single_process_is_this_one() -> None:
    seen = []
    assert LocalGroups().run(lambda process, wait: seen.append(process.rank) or 7) == [7]
    assert seen == [0]
