"""The kinds of audit that `unweave audit` runs: of a run, of a concept, of answers, by a qualification."""
