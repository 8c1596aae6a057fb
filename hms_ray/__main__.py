"""``python -m hms_ray`` is the same as ``hms-ray``."""

from hms_ray.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
