"""From fold models to predictions of recordings, and to a submission."""
