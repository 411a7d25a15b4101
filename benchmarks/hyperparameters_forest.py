"""What a random forest makes of points that fill a space: importance of each factor, pairs, and curves.

The forest predicts the logarithm of a point's value, the mean over seeds. Importance is told in two ways:
by what the prediction of left-out points loses when a factor is shuffled, and by the share of the forest's
variance that belongs to a factor alone, or to a pair beyond its two (functional ANOVA; Hutter et al., 2014).
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import KFold

Row = dict[str, Any]
Array = np.ndarray
BACKGROUND = 32
"""Points that a curve is a mean over."""


class Columns:
    """Points as numbers: logarithms of positive numbers, an indicator per name.

    Args:
        points: One value per factor each.
    """

    def __init__(self, points: Sequence[Mapping[str, Any]]) -> None:
        self.points = points
        self.levels = {name: levels_of([point[name] for point in points]) for name in points[0]}
        parts = {name: self.column(name, [point[name] for point in points]) for name in points[0]}
        ends = np.cumsum([0, *(part.shape[1] for part in parts.values())])
        self.of = {
            name: slice(a, b) for name, a, b in zip(parts, ends[:-1].tolist(), ends[1:].tolist(), strict=True)
        }
        self.x = np.hstack(list(parts.values()))

    def column(self, name: str, values: Sequence[Any]) -> Array:
        """The columns of a factor."""
        kinds = self.levels[name]
        if isinstance(kinds[0], str) or None in kinds:
            return np.array([[float(value == kind) for kind in kinds] for value in values])
        positive = min(level for level in kinds if level > 0)
        return np.log([[max(value, positive / 2)] for value in values])

    def at(self, x: Array, settings: Mapping[str, Any]) -> Array:
        """Rows with some factors set."""
        moved = x.copy()
        for name, value in settings.items():
            moved[:, self.of[name]] = self.column(name, [value])
        return moved


def levels_of(values: Sequence[Any]) -> list[Any]:
    """All names, or eight numbers that cut the values in equal parts."""
    if any(value is None or isinstance(value, str) for value in values):
        return sorted(set(values), key=str)
    return sorted({float(each) for each in np.quantile(values, np.arange(0.5, 8) / 8, method="nearest")})


def forest(x: Array, y: Array) -> RandomForestRegressor:
    """A fitted forest."""
    return RandomForestRegressor(
        100, min_samples_leaf=2, max_features=0.5, oob_score=True, random_state=0
    ).fit(x, y)


def described(points: Sequence[Mapping[str, Any]], values: Sequence[float]) -> Row:
    """All that the forest says of a stage.

    Args:
        points: One value per factor each, none of which failed.
        values: What they are worth.
    """
    columns, y = Columns(points), np.log(values)
    fitted = forest(columns.x, y)
    curves = {name: partial(fitted, columns, (name,)) for name in columns.of}
    spread = float(fitted.predict(columns.x).var())
    alone = {name: float(curve.var() / spread) for name, curve in curves.items()}
    return {
        "points": len(points),
        "explained": float(fitted.oob_score_),
        "importance": shuffled(columns, y),
        "alone": alone,
        "pairs": pairs(fitted, columns, curves, spread),
        "curves": {
            name: [
                [level, float(np.exp(value))]
                for level, value in zip(columns.levels[name], curve, strict=True)
            ]
            for name, curve in curves.items()
        },
    }


def shuffled(columns: Columns, y: Array, folds: int = 5, repeats: int = 5) -> dict[str, float]:
    """By how much the explained part of left-out points falls, as a fraction of the variance."""
    random = np.random.default_rng(0)
    lost = dict.fromkeys(columns.of, 0.0)
    for train, test in KFold(folds, shuffle=True, random_state=0).split(columns.x):
        fitted = forest(columns.x[train], y[train])
        x, wanted = columns.x[test], y[test]
        before = np.square(fitted.predict(x) - wanted).sum()
        for name, span in columns.of.items():
            for _ in range(repeats):
                mixed = x.copy()
                mixed[:, span] = x[random.permutation(len(x))][:, span]
                lost[name] += (np.square(fitted.predict(mixed) - wanted).sum() - before) / repeats
    whole = float(np.square(y - y.mean()).sum())
    return {name: float(each / whole) for name, each in lost.items()}


def partial(fitted: RandomForestRegressor, columns: Columns, names: Sequence[str]) -> Array:
    """The mean prediction at every level, or at every pair of levels, of some factors."""
    background = columns.x[:BACKGROUND]
    grid = np.stack(np.meshgrid(*(np.arange(len(columns.levels[n])) for n in names), indexing="ij"), -1)
    rows = [
        columns.at(background, {n: columns.levels[n][i] for n, i in zip(names, place, strict=True)})
        for place in grid.reshape(-1, len(names))
    ]
    predicted = fitted.predict(np.concatenate(rows)).reshape(len(rows), -1).mean(1)
    return predicted.reshape(grid.shape[:-1])


def pairs(
    fitted: RandomForestRegressor,
    columns: Columns,
    curves: Mapping[str, Array],
    spread: float,
    most: int = 10,
) -> list[Row]:
    """The pairs of factors that do most beyond what the two do alone."""
    found: list[Row] = []
    for a, b in combinations(columns.of, 2):
        together = partial(fitted, columns, (a, b))
        beyond = together - curves[a][:, None] - curves[b][None, :] + together.mean()
        found.append({"pair": [a, b], "share": float(beyond.var() / spread)})
    return sorted(found, key=lambda each: -each["share"])[:most]
