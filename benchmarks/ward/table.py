"""Tables of what run.py measured: ``python benchmarks/ward/table.py ward.jsonl``. README.md explains the columns."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from scipy.stats import beta, binomtest

Row = dict[str, Any]

DAMAGE = 0.02  # of the score, or of what is reported above or below it
LOG_LOSS = 0.05
SURE = 0.05
NEAR_BEST = 0.05  # of the score: a healthy recipe is at most so far from the best of its world
CURED = 0.8  # of the damage taken away


def upper(count: int, number: int) -> float:
    """The one-sided 95 % limit of a share (Clopper and Pearson 1934)."""
    return 1.0 if count >= number else float(beta.ppf(0.95, count + 1, number - count))


def share(flags: Iterable[bool]) -> str:
    known = list(flags)
    return f"{sum(known)}/{len(known)} {sum(known) / len(known):.0%}" if known else "-"


def best_of_worlds(rows: Sequence[Row]) -> dict[str, float]:
    """The best recipe's mean hidden score in each world, the healthy twins of ill units among them."""
    scores: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for row in rows:
        if "files" not in row:
            scores[row["world"], row["recipe"]][row["seed"]] = row["healthy"]["score"]
    best: dict[str, float] = {}
    for (world, _), values in scores.items():
        best[world] = max(best.get(world, 0.0), statistics.mean(values.values()))
    return best


def healthy_ones(rows: Sequence[Row]) -> list[Row]:
    """Units without a fault whose recipe does about as well as any in its world; the others are no evidence."""
    best = best_of_worlds(rows)
    well = [row for row in rows if not row["fault"]]
    return [row for row in well if "files" in row or row["judged"]["score"] >= best[row["world"]] - NEAR_BEST]


def damaged(rows: Sequence[Row]) -> bool:
    """Whether a fault, in one degree on one host, does harm: all seeds together, an effect and a test."""
    if "files" in rows[0]:
        return True
    kind = rows[0]["harms"]
    ill, well = ([row[which] for row in rows] for which in ("judged", "healthy"))
    if kind == "confidence":
        return (
            statistics.mean(_finite(a["log_loss"]) - _finite(b["log_loss"]) for a, b in zip(ill, well, strict=True))
            >= LOG_LOSS
        )
    if kind == "report":
        off = statistics.mean(
            abs(a["reported"] - a["score"]) - abs(b["reported"] - b["score"]) for a, b in zip(ill, well, strict=True)
        )
        return off >= DAMAGE
    drop = statistics.mean(b["score"] - a["score"] for a, b in zip(ill, well, strict=True))
    worse, better = sum(row["worse"] for row in rows), sum(row["better"] for row in rows)
    if worse + better == 0:  # worlds whose images the fault changes
        return drop >= DAMAGE
    return drop >= DAMAGE and binomtest(better, worse + better, 0.5).pvalue < SURE


def _finite(value: float) -> float:
    return min(value, 20.0)


def sick_ones(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """(damaged, sub-clinical) units with a fault."""
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        if row["fault"]:
            groups[row["fault"], row["severity"], row["world"], row["recipe"]].append(row)
    parted: tuple[list[Row], list[Row]] = [], []
    for group in groups.values():
        parted[0 if damaged(group) else 1].extend(group)
    return parted


def verdicts(rows: Iterable[Row], doctor: str) -> list[tuple[Row, Row]]:
    return [(row, row["verdicts"][doctor]) for row in rows if doctor in row["verdicts"]]


def cures(rows: Sequence[Row], doctor: str) -> list[bool]:
    """Of the damaged units: whether the treatment took most of the damage away. No treatment is no cure."""
    found = []
    for row, verdict in verdicts(rows, doctor):
        if "files" not in row and ("trial" in verdict or "treatment" not in verdict):
            trial = verdict.get("trial") or {}
            if "judged" in trial and trial["closed"] is None:
                continue  # over all seeds it is damaged, this seed alone is not: there was nothing to take away
            found.append((trial.get("closed") or 0.0) >= CURED)
    return found


def harms(rows: Sequence[Row], doctor: str) -> list[bool]:
    trials = [verdict["trial"] for _, verdict in verdicts(rows, doctor) if verdict.get("trial")]
    return [bool(trial.get("harmed")) for trial in trials]


def macro(rows: Sequence[Row], flag: Callable[[Row], bool]) -> float:
    """The mean over the faults of the share of their units."""
    by_fault: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        by_fault[row["fault"]].append(flag(row))
    return statistics.mean(statistics.mean(flags) for flags in by_fault.values()) if by_fault else 0.0


def unfounded(row: Row, verdict: Row) -> list[str]:
    """Alarms about a healthy unit, those left out that are true of its world: a validation of 60 images is small."""
    return [code for code in verdict["alarms"] if code not in row.get("admits", ())]


def doctor_line(name: str, healthy: Sequence[Row], sick: Sequence[Row]) -> list[str]:
    false = [bool(unfounded(row, verdict)) for row, verdict in verdicts(healthy, name)]
    sick = [row for row in sick if name in row["verdicts"]]

    def rank(row: Row) -> int:
        return int(row["verdicts"][name]["rank"])

    first = macro(sick, lambda row: rank(row) == 1)
    cured = cures(sick, name)
    cured_macro = sum(cured) / len(cured) if cured else 0.0
    harmed = harms([*healthy, *sick], name)
    placebo = [bool(row["placebo"] and row["placebo"].get("certified")) for row in healthy if "placebo" in row]
    wrong = sum(false) / len(false) if false else 1.0
    honest = statistics.mean(placebo) <= 0.05 if placebo else False
    safe = not harmed or statistics.mean(harmed) <= 0.01
    score = 100 * first * cured_macro * max(0.0, 1 - wrong / 0.05) * safe * honest
    costs = [verdict["seconds"] / max(0.1, row["train_seconds"]) for row, verdict in verdicts([*healthy, *sick], name)]
    return [
        name,
        f"{share(false)} (<{upper(sum(false), len(false)):.1%})" if false else "-",
        f"{macro(sick, lambda row: bool(row['verdicts'][name]['alarms'])):.0%}",
        f"{first:.0%}",
        f"{macro(sick, lambda row: 1 <= rank(row) <= 3):.0%}",
        share(cured),
        share(harmed),
        f"{statistics.median(costs):.1f}" if costs else "-",
        f"{score:.1f}",
    ]


COLUMNS = ["doctor", "false alarms", "detects", "Dx@1", "Dx@3", "cures", "harms", "cost", "WARD"]


def print_table(lines: Sequence[Sequence[str]]) -> None:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for count, line in enumerate(lines):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")
        if count == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def by_family(sick: Sequence[Row], doctor: str) -> list[list[str]]:
    from faults import FAULTS
    from file_units import FILE_FAULTS

    families: dict[str, list[Row]] = defaultdict(list)
    for row in sick:
        number = {**FAULTS, **FILE_FAULTS}[row["fault"]].id
        families["double" if "+" in number else number[0].replace("?", "withheld")].append(row)
    lines = [["family", "units", "detected", "named first", "named in three", "cured"]]
    for family, rows in sorted(families.items()):
        lines.append([family, *_counts(rows, doctor)])
    return lines


def _counts(rows: Sequence[Row], doctor: str) -> list[str]:
    seen = [verdict for _, verdict in verdicts(rows, doctor)]
    return [
        str(len(rows)),
        share(bool(verdict["alarms"]) for verdict in seen),
        share(verdict["rank"] == 1 for verdict in seen),
        share(1 <= verdict["rank"] <= 3 for verdict in seen),
        share(cures(rows, doctor)),
    ]


def by_fault(rows: Sequence[Row], doctor: str) -> list[list[str]]:
    """Every fault and degree: its mean damage, and what was said first."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row["fault"]:
            groups[row["fault"], row["severity"]].append(row)
    lines = [
        [
            "fault",
            "degree",
            "healthy",
            "hidden",
            "reported",
            "damaged",
            *("units", "detected", "first", "three", "cured"),
            "says",
        ]
    ]
    order = {"mild": 0, "moderate": 1, "severe": 2}
    for (fault, severity), group in sorted(groups.items(), key=lambda each: (each[0][0], order[each[0][1]])):
        ill = sick_ones(group)[0]
        said = [" ".join(verdict["alarms"][:2]) or "-" for _, verdict in verdicts(group, doctor)]
        most = statistics.mode(said) if said else "-"
        files = "files" in group[0]
        means = ("-" if files else f"{statistics.mean(row[a][b] for row in group):.3f}" for a, b in _SHOWN)
        lines.append([fault, severity, *means, f"{len(ill)}/{len(group)}", *_counts(group, doctor), most])
    return lines


_SHOWN = (("healthy", "score"), ("judged", "score"), ("judged", "reported"))


def false_alarms(healthy: Sequence[Row], doctor: str) -> list[list[str]]:
    lines = [["healthy unit", "hidden", "alarms", "signs"]]
    for row, verdict in verdicts(healthy, doctor):
        if unfounded(row, verdict):
            lines.append(
                [
                    row["key"],
                    f"{row['judged']['score']:.3f}" if "judged" in row else "-",
                    " ".join(verdict["alarms"]),
                    " ".join(verdict["signs"][:6]),
                ]
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path, nargs="+")
    parser.add_argument("--doctor", default="snellen", help="whose families and faults are listed")
    parser.add_argument(
        "--least-first", type=float, help="fail below this share of right first names, and at any false alarm or error"
    )
    asked = parser.parse_args()
    rows = [json.loads(line) for path in asked.rows for line in path.read_text().splitlines()]
    failed, rows = [row for row in rows if "error" in row], [row for row in rows if "error" not in row]
    healthy, (sick, mild) = healthy_ones(rows), sick_ones(rows)
    apart = sum(not row["fault"] for row in rows) - len(healthy)
    print(f"{len(rows)} units: {len(healthy)} healthy, {apart} without a fault but far from the best of their world,")
    print(f"{len(sick)} damaged, {len(mild)} sub-clinical, {len(failed)} failed. Thresholds ", end="")
    print(", ".join(sorted({row["versions"]["thresholds"][:12] for row in rows})) + ".\n")
    for row in failed:
        print(f"failed: {row['key']}: {row['error']}")
    doctors = list(dict.fromkeys(name for row in rows for name in row["verdicts"]))
    print_table([COLUMNS, *(doctor_line(name, healthy, sick) for name in doctors)])
    placebo = [bool(row["placebo"] and row["placebo"].get("certified")) for row in healthy if "placebo" in row]
    drawn = [row["random"] for row in sick if row.get("random") and row["random"]["closed"] is not None]
    print(f"\nPlacebo certified as a cure: {share(placebo)}. Random changes for as long: ", end="")
    print(share((trial.get("closed") or 0.0) >= CURED for trial in drawn) + " cured.")
    if asked.doctor in doctors:
        for table in (false_alarms(healthy, asked.doctor), by_family(sick, asked.doctor), by_fault(rows, asked.doctor)):
            print()
            print_table(table)
    if asked.least_first is not None and not _is_good(healthy, sick, failed, asked.doctor, asked.least_first):
        sys.exit(f"too few of {len(sick)} named first, a false alarm, or a unit that failed")


def _is_good(healthy: Sequence[Row], sick: Sequence[Row], failed: Sequence[Row], doctor: str, least: float) -> bool:
    """Not so without anybody to judge by."""
    named = [verdict["rank"] == 1 for _, verdict in verdicts(sick, doctor)]
    calm = [not unfounded(row, verdict) for row, verdict in verdicts(healthy, doctor)]
    return bool(named and calm and not failed and all(calm) and statistics.mean(named) >= least)


if __name__ == "__main__":
    main()
