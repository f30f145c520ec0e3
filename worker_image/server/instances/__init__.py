"""More than one copy of a model: threads that share one, or processes with one each."""
