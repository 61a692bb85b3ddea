"""Real-IAD: one JSON per category lists train and test images. Images and masks lie in <root>/<image_dir>/<category>/.

Readers of this data set often go wrong on these points:
* The label is the record's `anomaly_class`. Many images under NG/ are OK, because the defect does not show in that
  view.
* `mask_path` may be null or the string "None".
* S-numbers restart in every NG/<code> folder. A sample is therefore named by OK or NG_<code> together with its number.
* Some copies nest the folders once more. <root>/realiad_jsons/<variant>/<category>.json is accepted too, and so are
  images under <root>/<image_dir>/<image_dir>/.
* The `fuiad` sets put anomalous samples into the training set on purpose. They are noisy variants already.

References: Wang et al., "Real-IAD: A Real-World Multi-View Dataset for Benchmarking Versatile Industrial Anomaly
Detection", CVPR 2024 (arXiv 2403.12580). Licence of the data: CC BY-NC-SA 4.0, on request.
"""

import json
import re
from pathlib import Path
from typing import Any

from llbnad.config import RealIadDataset
from llbnad.data.manifest import NORMAL
from llbnad.data.sources.records import Listing, Record
from llbnad.errors import DataError

KEYS = ("category", "anomaly_class", "image_path", "mask_path")
VIEW = re.compile(r"_(C\d+)(?:_|$)")


def records(dataset: RealIadDataset, root: Path) -> Listing:
    """Return all images of a category, train and test.

    Raises:
        DataError: the JSON is missing or malformed, or the image folder is missing.
    """
    source = _json_file(dataset, root)
    try:
        content = json.loads(source.read_text(encoding="utf-8-sig"))  # Windows tools begin a file with a BOM
        meta = content["meta"]
        prefix, normal = _text(source, "meta.prefix", meta["prefix"]), meta["normal_class"]
        listed = [(split, entry) for split in ("train", "test") for entry in content[split]]
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{source} is not valid JSON: {error}") from None
    except (KeyError, TypeError) as error:
        raise DataError(f"{source} lacks {error}; expected meta.prefix, meta.normal_class, train and test") from None
    folder = _image_folder(dataset, root, prefix)
    return Listing(root, [_record(source, entry, split, folder, normal) for split, entry in listed], files=dataset)


def sample_of(image_path: str, category: str) -> str:
    """Return the sample id of an image: category, OK or NG_<code>, and S-number.

    `NG/AK/S0044/x_C1.jpg` of plastic_nut -> `plastic_nut/NG_AK/S0044`.
    """
    return "/".join([category, "_".join(Path(image_path).parts[:-2]), Path(image_path).parts[-2]])


def _record(source: Path, entry: Any, split: str, folder: str, normal: str) -> Record:
    missing = [key for key in KEYS if not isinstance(entry, dict) or key not in entry]
    if missing:
        raise DataError(f"{source}: a record of {split} lacks {missing}: {json.dumps(entry)[:200]}")
    path, category, mask = entry["image_path"], entry["category"], entry["mask_path"]
    path, category = _text(source, "image_path", path), _text(source, "category", category)
    label = _text(source, f"anomaly_class of {path}", entry["anomaly_class"])
    if len(Path(path).parts) < 3:
        raise DataError(f"{source}: image_path {path!r}; expected OK/S0001/<file> or NG/<code>/S0001/<file>")
    mask = None if mask in (None, "", "None") else _text(source, f"mask_path of {path}", mask)
    view = VIEW.search(Path(path).stem)
    return Record(
        path=folder + path,
        category=category,
        sample_id=sample_of(path, category),
        mask_path=None if mask is None else folder + mask,
        view=view[1] if view else None,
        anomaly_class=NORMAL if label == normal else label,
        split=split,
    )


def _text(source: Path, key: str, value: Any) -> str:
    """Return a text of the JSON, with `/` for the `\\` of Windows; a path in it must not leave its folder."""
    if not isinstance(value, str):
        raise DataError(f"{source}: {key} is {value!r}; expected a text")
    inside = value.replace("\\", "/")
    if ".." in Path(inside).parts or (inside.startswith("/") and key != "meta.prefix") or ":" in inside[:2]:
        raise DataError(f"{source}: {key} is {value!r}; expected a path inside the image folder")
    return inside


def _json_file(dataset: RealIadDataset, root: Path) -> Path:
    name = f"{dataset.category}.json"
    places = [root / dataset.variant / name, root / "realiad_jsons" / dataset.variant / name]
    found = next((place for place in places if place.is_file()), None)
    if found is not None:
        return found
    folders = sorted({path.parent for path in [*root.glob("*/*.json"), *root.glob("realiad_jsons/*/*.json")]})
    there = {
        folder.relative_to(root).as_posix(): sorted(path.stem for path in folder.glob("*.json")) for folder in folders
    }
    raise DataError(
        f"no JSON of category {dataset.category!r} at {places[0]} or {places[1]}; JSON files found: {there or 'none'}"
    )


def _image_folder(dataset: RealIadDataset, root: Path, prefix: str) -> str:
    """Return the image directory with the prefix, relative to the root, with a slash at the end."""
    tail = prefix.strip("/")
    places = [Path(dataset.image_dir) / tail, Path(dataset.image_dir) / dataset.image_dir / tail]
    found = next((place for place in places if (root / place).is_dir()), None)
    if found is None:
        raise DataError(
            f"no images at {root / places[0]} (image_dir {dataset.image_dir!r}): unpack the category's archive "
            "there, or set image_dir to the size you have, such as realiad_256"
        )
    return found.as_posix() + "/"
