"""The runs of `unweave forget`: of examples or classes, and of concepts."""
