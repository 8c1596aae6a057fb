"""What predictions are worth: the metric, out-of-fold tables, blends, honest estimates."""
