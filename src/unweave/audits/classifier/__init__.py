"""The audit of classifiers: their answers, metrics, attacks and probes."""
