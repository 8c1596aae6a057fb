"""Any out-of-fold predictions to one blend: inputs, alignment, method, result."""
