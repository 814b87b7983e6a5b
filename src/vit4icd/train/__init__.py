"""The training wing: the only place that imports torch; nothing here is needed to search."""
