"""Sources of teacher signals: a frozen model, an ensemble, a cache of outputs."""
