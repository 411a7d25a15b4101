"""Checks whether records may share a table: the same code, data and recipe for each stage."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from unweave.families import families_by_table
from unweave.record.digest import rerun_command
from unweave.record.record import explain_unverified
from unweave.report.template import flatten

Record = Mapping[str, Any]

ABOUT = ("data", "model", "train")
"""The parts of a recipe that, with its family's table, define the problem; others choose methods, seeds."""

APART = "show each alone, or several on one page with unweave report"
"""The advice on two runs of other requests, which all have one name."""


def refuse_mixed(records: Mapping[str, Record]) -> None:
    """Raises a ValueError that names two records, by place, if their figures can't be compared."""
    refuse_earlier(records)
    for (first, one), (second, other) in combinations(records.items(), 2):
        problem = f"{first} and {second} can't share a table"
        codes = [code_identity(each) for each in (one, other)]
        if codes[0] != codes[1]:
            raise ValueError(f"{problem}: made by code {codes[0]} and {codes[1]}: make one of them again")
        for name in (each for each in one["stages"] if each in other["stages"]):
            if differs := difference(one["stages"][name], other["stages"][name]):
                advice = "rename one, or make it again" if one["stages"][name]["recipe"] else APART
                raise ValueError(f"{problem}: stage {name!r} has {differs}: {advice}")


def refuse_earlier(records: Mapping[str, Record]) -> None:
    """Raises if a record of the earlier schema, without a digest, is combined with a verified one."""
    old_places = [place for place, each in records.items() if explain_unverified(each)]
    verified_places = [place for place in records if place not in old_places]
    if old_places and verified_places:
        place = old_places[0]
        problem = f"{verified_places[0]} and {place} can't share a table or a page"
        what = "made by an earlier version"
        advice = f"make it again with {rerun_command(records[place])}"
        raise ValueError(f"{problem}: {place} was {what}, without a digest, and can't be verified: {advice}")


def code_identity(whole_record: Record) -> str:
    """The version and the digest of the package that made a record."""
    environment = whole_record["environment"]
    version = environment.get("packages", {}).get("unweave", "unknown version")
    return f"{version} ({str(environment.get('code', 'unknown'))[:12]})"


def difference(one: Record, other: Record) -> str:
    """The difference of two stages, in words: data or recipe; empty if there is none."""
    digests = [str(stage["data"].get("digest", "unknown"))[:12] for stage in (one, other)]
    if digests[0] != digests[1]:
        return f"data {digests[0]} and {digests[1]}"
    ours, theirs = (dict(flatten(problem_facts(stage["recipe"]))) for stage in (one, other))
    keys = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    return f"{keys[0]} = {ours.get(keys[0], 'unset')} and {theirs.get(keys[0], 'unset')}" if keys else ""


def problem_facts(recipe: Record) -> dict[str, Any]:
    """The problem that a recipe defines, without paths of files, which the digest covers."""
    facts = {key: recipe[key] for key in (*ABOUT, *families_by_table()) if key in recipe}
    if isinstance(facts.get("data"), Mapping):
        facts["data"] = {key: value for key, value in facts["data"].items() if key != "folder"}
    return facts
