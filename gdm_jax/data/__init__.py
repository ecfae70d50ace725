"""Training data: random-access sources and the pipeline that batches them."""
