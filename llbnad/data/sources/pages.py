"""Files of several pages: a record for each image that a record's file stands for."""

from dataclasses import replace
from pathlib import Path

from llbnad.data.decode import pages_of
from llbnad.data.masks import join_masks, split_masks
from llbnad.data.names import content_path
from llbnad.data.sources.records import PART, Listing, Record, Rejection


def records_of_pages(listing: Listing, record: Record) -> tuple[list[Record], list[Rejection]]:
    """Return a record for each image that a record's file stands for, and why a mask of it is not read, if so.

    Page 2 of a mask belongs to page 2 of its image. All pages of a mask belong to an image of one page.
    """
    wanted = listing.files.pages
    images = [_name(record.path, page) for page in pages_of(listing.root / record.path, wanted)]
    masks, rejected = [], []
    for path in split_masks(record.mask_path):
        its = [_name(path, page) for page in pages_of(listing.root / path, wanted)]
        if images == [record.path] or len(its) == len(images):
            masks.append(its)
        else:
            detail = f"a mask of {len(its)} page(s), and {record.path} has {len(images)}: give each page its own"
            rejected.append(Rejection(path, "mask_of_pages", detail))
    if rejected:
        lost = sorted(set(split_masks(record.mask_path)) - {one.path for one in rejected})
        rejected += [Rejection(mask, "mask_unused", PART.format(record.path)) for mask in lost]
        masks = []
    if images == [record.path]:
        return [replace(record, mask_path=join_masks([page for its in masks for page in its]))], rejected
    alone = record.sample_id in (record.path, content_path(record.path))
    pages = []
    for number, name in enumerate(images):
        mask = join_masks([its[number] for its in masks])
        sample = content_path(name) if alone else record.sample_id
        pages.append(replace(record, path=name, sample_id=sample, mask_path=mask))
    return pages, rejected


def _name(path: str, page: Path) -> str:
    """Return the path of a page of the file `path`, relative as it is."""
    return path[: len(path) - len(Path(path).name)] + page.name
