"""Ways to combine the predictions of models, behind one interface (``base.Method``)."""
