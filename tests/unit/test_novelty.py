"""Newly learnt images, on real solar cells: more of the same cells pass, turned and dark cells are noticed."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from llbnad.config import ElpvDataset, EncoderConfig, Promotion
from llbnad.data.sources import elpv
from llbnad.data.sources.records import Listing, Record
from llbnad.data.sources.scan_files import scan
from llbnad.detectors.patchcore.detector import PatchcoreConfig
from llbnad.features.store import FeatureStore
from llbnad.model.calibrate import FoldTrainer, out_of_fold
from llbnad.model.model import train
from llbnad.model.threshold import threshold_at
from llbnad.monitoring.challenger_checks import alarms, shift
from llbnad.monitoring.novelty import FEWEST_IMAGES, Novelty, novelty

KNOWN, NEW = 50, 20
BOUNDS = Promotion()
CHANGES = {
    "dark": lambda image: image.point(lambda value: value * 0.5),
    "turned": lambda image: image.transpose(Image.Transpose.ROTATE_90),
}


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    """Champion of 50 normal cells, ids by kind, and a function that judges what a successor learnt."""
    root = tmp_path_factory.mktemp("novelty")
    listing = elpv.records(ElpvDataset())
    cells = [record for record in listing.records if record.anomaly_class == "OK"][: 2 * (KNOWN + NEW)]
    records = []
    for number, index in enumerate(np.random.default_rng(0).permutation(len(cells))[: KNOWN + NEW]):
        with Image.open(listing.root / cells[index].path) as image:
            kinds = {"known": image.copy()}
            if number >= KNOWN:
                kinds = {"more": image.copy()} | {name: change(image) for name, change in CHANGES.items()}
        for name, picture in kinds.items():
            path = f"{name}_{number:03d}.png"
            picture.save(root / path)
            records.append(Record(path, "cells", path))
    manifest = scan(Listing(root, records)).manifest
    ids = {
        name: manifest["image_id"][manifest["path"].str.startswith(name)].tolist()
        for name in ("known", "more", *CHANGES)
    }
    encoder, detector = EncoderConfig(input_size=64), PatchcoreConfig(memory_size=1024)
    features = FeatureStore(root / "cache", encoder, manifest, root)
    kept = manifest[manifest["image_id"].isin(ids["known"])]
    scores = out_of_fold(kept, FoldTrainer(features, encoder, detector, 0), 3).scores.values
    champion = replace(train(encoder, detector, features, ids["known"], 0), threshold=threshold_at(scores, 0.1))

    def judge(learnt_now, champion=champion, learnt_before=ids["known"]):
        return novelty(champion, learnt_before, learnt_now, features, manifest, root, 0)

    return champion, ids, judge


def refused(found):
    return {one.name for one in (alarms(found, BOUNDS.max_alarms), shift(found, BOUNDS)) if one.failed}


def test_more_of_the_same_passes(line):
    _, ids, judge = line
    found = judge(ids["known"] + ids["more"])
    assert found.count == NEW  # what the champion has learnt itself is not new
    assert (found.drift.n_reference, found.drift.n_batch) == (KNOWN, NEW)
    assert refused(found) == set()


def test_dark_images_are_noticed_by_their_brightness(line):
    _, ids, judge = line
    found = judge(ids["known"] + ids["dark"])
    assert "shift" in refused(found)  # at how many of them the detector alarms depends on its threshold
    assert "brightness by" in shift(found, BOUNDS).observed


def test_turned_images_are_noticed_by_both(line):
    _, ids, judge = line
    found = judge(ids["known"] + ids["turned"])
    assert {one.image_id for one in found.alarms} == {*ids["turned"]} and found.by_chance < 1e-6
    assert all(one.path.startswith("turned_") and one.label in ("unsure", "defect") for one in found.alarms)
    assert [one.score for one in found.alarms] == sorted((one.score for one in found.alarms), reverse=True)
    assert refused(found) == {"alarms", "shift"}


def test_what_cannot_be_compared_is_left_open(line):
    champion, ids, judge = line
    few = ids["turned"][: FEWEST_IMAGES - 1]
    assert judge(ids["known"] + few) == Novelty(len(few))  # as after a person called the others normal
    assert judge(ids["turned"], champion=None).alarms is None
    assert judge(ids["turned"], champion=replace(champion, threshold=None)).alarms is None
    gone = judge(ids["turned"], learnt_before=["0" * 64])  # the champion's own images have left the data
    assert gone.drift is None and len(gone.alarms) == NEW
