"""Token authentication, before any test module imports ray."""

import hms_ray.sweep  # noqa: F401 - importing it sets RAY_AUTH_MODE
