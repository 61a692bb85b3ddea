"""Throughput of one detector on the CPU: torch, ONNX Runtime and OpenVINO, pixels in, score and patch map out.

Trains PatchCore and PaDiM on a few solar cells of the embedded data, exports both and times the same batches, best of
several rounds, runtimes in turn so that a busy moment hits all of them. Decoding and resizing are not counted.

    python benchmarks/export_throughput.py [--size 224] [--threads 1] [--out FILE]
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from llbnad.config import ElpvDataset, EncoderConfig, Runtime
from llbnad.detectors.padim import PadimConfig
from llbnad.detectors.patchcore import PatchcoreConfig
from llbnad.encoders.base import load_square
from llbnad.export import Format, Session, export, load_exported, parity, torch_session
from llbnad.features import FeatureStore
from llbnad.model import train
from llbnad.runtime import prepare
from llbnad.sources import elpv
from llbnad.sources.base import Listing, scan

TRAIN, TIMED = 48, 16  # images
PEER = "torch"


def main(
    size: Annotated[int, typer.Option(help="Input side, pixels.")] = 224,
    batch: Annotated[int, typer.Option(help="Images a call.")] = 16,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="The best of so many counts.")] = 5,
    out: Annotated[Path | None, typer.Option(help="JSON file for the results.")] = None,
) -> None:
    """Print a table and the entries as JSON."""
    prepare(Runtime(device="cpu", threads=threads))
    listing = elpv.records(ElpvDataset())
    normal = [record for record in listing.records if record.anomaly_class == "OK"][:TRAIN]
    defective = [record for record in listing.records if record.anomaly_class != "OK"][:TIMED]
    manifest = scan(Listing(listing.root, normal)).manifest
    images = np.stack([load_square(listing.root / record.path, size) for record in defective])
    command = f"python benchmarks/export_throughput.py --size {size} --batch {batch} --threads {threads}"
    entries = []
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore(Path(folder) / "features", EncoderConfig(input_size=size), manifest, listing.root)
        for config in (PatchcoreConfig(), PadimConfig()):
            model = train(store.config, config, store, manifest["image_id"].tolist(), seed=0)
            graphs = export(model, list(Format), Path(folder))
            sessions = {PEER: torch_session(model)}
            sessions |= {name.value: load_exported(path, threads) for name, path in graphs.items()}
            rates = throughput(sessions, images, batch, rounds)
            for name, rate in rates.items():
                found = parity(sessions[PEER], sessions[name], images)
                print(f"{config.name:10} {name:9} {rate:7.1f} images/s   score differs by {found.score:.0e}")
                if name != PEER:
                    entries.append(
                        {
                            "name": f"{config.name} exported to {name}, {size} px, batch {batch}, {threads} thread(s)",
                            "ours": round(rate, 1),
                            "peer": round(rates[PEER], 1),
                            "ratio": round(rate / rates[PEER], 2),
                            "unit": f"images/s (peer: {PEER})",
                            "command": command,
                        }
                    )
    text = json.dumps(entries, indent=2)
    print(text)
    if out:
        out.write_text(text + "\n")


def throughput(sessions: dict[str, Session], images: np.ndarray, batch: int, rounds: int) -> dict[str, float]:
    """Images a second of each session, best round."""
    best = dict.fromkeys(sessions, 0.0)
    for run in sessions.values():
        run(images[:batch])  # the first call allocates
    for _ in range(rounds):
        for name, run in sessions.items():
            started = time.perf_counter()
            for start in range(0, len(images), batch):
                run(images[start : start + batch])
            best[name] = max(best[name], len(images) / (time.perf_counter() - started))
    return best


if __name__ == "__main__":
    typer.run(main)
