"""Solar cells in electroluminescence, from the package `elpv-dataset`: 2,624 grey images of 300 × 300 pixels.

Experts gave each cell a probability of being defective. 0 means normal, 1 means anomalous (class `defect`); cells with
a probability in between are left out. There are no masks. Licence of the images: CC BY-NC-SA 4.0.

References: Buerhop-Lutz et al., "A Benchmark for Visual Identification of Defective Solar Cells in Electroluminescence
Imagery", EU PVSEC 2018.
"""

from pathlib import Path

from llbnad.config import ElpvDataset
from llbnad.data.manifest import NORMAL
from llbnad.data.sources.records import Listing, Record, Rejection
from llbnad.errors import DataError
from llbnad.utils.files import installed_files

CLASSES = {0.0: NORMAL, 1.0: "defect"}


def records(dataset: ElpvDataset) -> Listing:
    """Return the cells of `dataset.category` (mono or poly). Each cell is a sample of its own.

    Raises:
        DataError: the package is not installed, or a line of its labels is malformed.
    """
    root = _folder()
    found, uncertain = [], []
    for line in (root / "labels.csv").read_text().splitlines():
        if not line.strip():
            continue
        try:
            path, probability, kind = line.split()
            defective = float(probability)
        except ValueError:
            raise DataError(f"{root / 'labels.csv'}: {line!r} is not 'path probability kind'") from None
        if kind != dataset.category:
            continue
        # labels are rounded thirds, so 0 and 1 are exact
        if defective in CLASSES:
            found.append(Record(path, f"elpv_{kind}", Path(path).stem, anomaly_class=CLASSES[defective]))
        else:
            uncertain.append(Rejection(path, "uncertain", f"defect probability {defective:.2f}: neither 0 nor 1"))
    return Listing(root, found, uncertain)


def _folder() -> Path:
    labels = installed_files("elpv_dataset", "data/labels.csv")
    if not labels:
        raise DataError("the solar-cell images are not installed: run `pip install elpv-dataset`")
    return labels[0].parent
