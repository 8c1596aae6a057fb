"""A study as its folder holds it; no Ray is needed to read one."""
