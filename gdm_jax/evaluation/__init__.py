"""Features, distances and the evaluation run: how good the samples are."""
