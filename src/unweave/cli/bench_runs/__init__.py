"""The runs of `unweave bench`: of recipes, of a given model, and of concepts."""
