"""A ladder of experiments: what each step brings, on the same rows."""
