"""The statistics and tables of `estimators.py`: means over seeds, beside those of the plain proxy."""

from collections.abc import Sequence

import numpy as np
from estimator_cases import REACHED
from rows import Row

from unweave.audits.score import FEWEST, interval

PLAIN = "proxy"
MEASURED = ("tv", "kl", "rank", "level", "tv_elsewhere", "rank_elsewhere", "gap", "reached_tv", "own_gap")


def summary(rows: Sequence[Row]) -> list[Row]:
    """Per estimator and budget: means over seeds, and the paired difference from the plain proxy."""
    groups: dict[tuple[str, float | None], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["estimator"], row["budget"]), []).append(row)
    return [
        {"estimator": name, "budget": budget, **of_group(of_estimator, groups[PLAIN, budget or REACHED])}
        for (name, budget), of_estimator in groups.items()
    ]


def of_group(rows: Sequence[Row], proxy_rows: Sequence[Row]) -> Row:
    """The figures of one estimator at one budget; `proxy_rows` are those of the plain proxy, by seed."""
    finished_rows = [row for row in rows if "refused" not in row]
    if not finished_rows:
        return {"refused": rows[0]["refused"]}
    by_seed = {row["seed"]: row for row in proxy_rows}
    figures = {}
    for key in MEASURED:
        if key in finished_rows[0]:
            figures[key] = with_interval([row[key] for row in finished_rows])
            differences = [
                row[key] - by_seed[row["seed"]][key] for row in finished_rows if key in by_seed[row["seed"]]
            ]
            figures[key] |= {"less_the_proxy": with_interval(differences)} if differences else {}
    cost = {
        key: float(np.mean([row["cost"][key] for row in finished_rows]))
        for key in finished_rows[0].get("cost", {})
    }
    return {"seeds": len(finished_rows), "cost": cost, **figures}


def with_interval(values: Sequence[float]) -> Row:
    """The mean and its 95 % interval, if there are seeds enough for one."""
    return {"mean": float(np.mean(values)), "interval": interval(values) if len(values) >= FEWEST else None}


def table_lines(results: Row) -> list[str]:
    """The tables as lines."""
    lines: list[str] = []
    for name, rows in results["summary"].items():
        lines += ["", f"{name:40} budget gradients seconds    TV    KL  rank level   gap"]
        for row in rows:
            title = f"  {row['estimator']:38} {row['budget'] or '':>6}"
            lines.append(f"{title} {row.get('refused') or cells(row)}")
    return lines


def cells(row: Row) -> str:
    """The figures of a row."""
    costs = [f"{row['cost'][key]:8.2f}" if row["cost"] else " " * 8 for key in ("gradients", "seconds")]
    keys = ("tv", "kl", "rank", "level", "gap")
    return " ".join(costs + [f"{row[key]['mean']:6.3f}" for key in keys if key in row])
