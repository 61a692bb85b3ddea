"""`python -m tests.campaign --kills 200 --seed 1`: kill, run again, compare, count."""

import csv
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from tests import warm
from tests.campaign.chain import Kill, run_chain, timed
from tests.campaign.kinds import KINDS, build
from tests.campaign.outputs import outputs

COLUMNS = ("seed", "kind", "chain", "kill", "seconds", "reach", "held", "message")


def campaign(
    kills: Annotated[int, typer.Option(min=1, help="Kills in all, dealt out to the kinds.")] = 20,
    seed: Annotated[int, typer.Option(help="Draws the kills per chain and their moments.")] = 0,
    kinds: Annotated[str, typer.Option(help="What is killed, separated by commas.")] = ",".join(KINDS),
    out: Annotated[Path, typer.Option(help="CSV of all kills; one that is there goes on.")] = Path("campaign.csv"),
    keep: Annotated[Path | None, typer.Option(help="Folder for the workspaces of chains that did not hold.")] = None,
) -> None:
    """Kill commands at random moments and check that the same command again mends everything."""
    chosen = kinds.split(",")
    if unknown := set(chosen) - set(KINDS):
        raise typer.BadParameter(f"{sorted(unknown)}; there are {list(KINDS)}", param_hint="--kinds")
    rows = _read(out, seed)
    end = warm.prepare()
    warm.programs()  # programs start warm: more of a run is work, and more kills hit it
    started, before = time.monotonic(), len(rows)
    wanted = len(chosen) * -(-kills // len(chosen))
    try:
        with tempfile.TemporaryDirectory(prefix="llbnad-campaign-") as name:
            for new in _chains(Path(name), chosen, wanted // len(chosen), seed, rows, keep):
                rows += new
                _write(out, rows)
                done = sum(row["kind"] in chosen for row in rows)
                rate = (time.monotonic() - started) / max(1, len(rows) - before)
                left = max(0, wanted - done) * rate / 60
                last = new[-1]
                state = "held" if last["held"] == "yes" else f"NOT HELD: {last['message']}"
                print(
                    f"{done}/{wanted} kills, about {left:.0f} min left; {last['kind']} {last['chain']}: {state}",
                    flush=True,
                )
    finally:
        end()
    _tell(rows, chosen)
    raise typer.Exit(any(row["held"] == "no" for row in rows))


def _chains(
    base: Path, kinds: list[str], each: int, seed: int, rows: list[dict[str, str]], keep: Path | None
) -> Iterator[list[dict[str, str]]]:
    """Run chains of all kinds in turn until each kind has had its kills; yield the rows of each chain."""
    tried = Counter(row["kind"] for row in rows)
    chains = Counter(
        {kind: max((int(row["chain"]) for row in rows if row["kind"] == kind), default=0) for kind in kinds}
    )
    measured: dict[str, tuple[float, dict[str, str]]] = {}
    while waiting := [kind for kind in kinds if tried[kind] < each]:
        for kind in waiting:
            start = base / f"start_{kind}"
            if kind not in measured:
                build(KINDS[kind], start)
                shutil.copytree(start, base / "work", symlinks=True)
                measured[kind] = timed(base / "work", KINDS[kind]), outputs(base / "work")
                print(f"{kind}: {measured[kind][0]:.1f} s undisturbed", file=sys.stderr, flush=True)
                shutil.rmtree(base / "work")
            chains[kind] += 1
            draw = random.Random(f"{seed} {kind} {chains[kind]}")
            shutil.copytree(start, base / "work", symlinks=True)
            duration, wanted = measured[kind]
            kills = run_chain(base / "work", KINDS[kind], wanted, duration, draw, each - tried[kind])
            tried[kind] += len(kills)
            if keep is not None and any(not kill.held for kill in kills):
                shutil.move(base / "work", keep / f"{kind}_{seed}_{chains[kind]}")
                shutil.copy(base / "work.log", keep / f"{kind}_{seed}_{chains[kind]}.log")
            shutil.rmtree(base / "work", ignore_errors=True)
            if kills:
                yield [_row(seed, kind, chains[kind], kill) for kill in kills]


def _row(seed: int, kind: str, chain: int, kill: Kill) -> dict[str, str]:
    held = "yes" if kill.held else "no"
    values = (seed, kind, chain, kill.number, f"{kill.seconds:.2f}", kill.reach, held, kill.message)
    return dict(zip(COLUMNS, map(str, values), strict=True))


def _read(path: Path, seed: int) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    if any(row["seed"] != str(seed) for row in rows):
        raise typer.BadParameter(f"{path} is of another seed: name another file", param_hint="--out")
    return rows


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def _tell(rows: list[dict[str, str]], kinds: list[str]) -> None:
    print("| kind | tried | held |\n|---|---|---|")
    for kind in [*kinds, "all"]:
        own = [row["held"] for row in rows if kind in (row["kind"], "all")]
        print(f"| {kind} | {len(own)} | {own.count('yes')} |")
    for row in rows:
        if row["held"] == "no":
            print(f"not held: {row['kind']}, chain {row['chain']}, after kill {row['kill']}: {row['message']}")


if __name__ == "__main__":
    typer.run(campaign)
