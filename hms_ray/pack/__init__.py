"""Competition folder to packed arrays, made once and shared by every run."""
