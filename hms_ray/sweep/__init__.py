"""A study on Ray Tune: the search loop, the trial actor, TensorBoard logs of ended trials.

May import every room below ``cli``, and ray. Optuna's side of the search is in ``search``,
Ray without a search (cluster, worker groups) in ``distributed``, a study's files in
``study``.
"""

import hms_ray.distributed  # noqa: F401 - sets RAY_AUTH_MODE before ray is imported
