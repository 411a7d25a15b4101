"""What is known before a run: problems of a model and its data, and the cost of methods."""
