"""The scoring of a folder's images as they arrive: each of them once, whenever the process is killed.

An image's row is the one thing that counts. What comes before it (reading, scoring, the picture) is done again after a
kill; what follows from it (the copy for training, the webhook) is in the ledger until it is done.
"""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from llbnad.errors import DataError, printable
from llbnad.inference.picture import heat_picture
from llbnad.inference.prediction import Prediction
from llbnad.inference.region_files import region_columns
from llbnad.utils.files import file_digest, replacing
from llbnad.utils.progress import track
from orchestration.inspection.champion import Champion, ChampionScorer
from orchestration.inspection.ledger import Ledger, LedgerRow, identity
from orchestration.line.inbox import FileMark, look, mark_of, untouched
from orchestration.line.move import LONGEST_NAME

CHUNK = 8  # images read and scored at once
PICTURES, QUALITY = "pictures", 85


@dataclass(frozen=True)
class Settings:
    """Settings of a watched folder."""

    images: Path  # the folder watched
    stable_seconds: float = 0.3  # a file is read when two looks saw the same and nobody touched it for so long
    late_seconds: float = 10.0  # a file that cannot be read is called bad when nobody touched it for so long
    inbox: Path | None = None  # scored images are copied here, to be learnt
    messages: bool = False  # the webhook is told
    pictures: bool = True


class Inspector:
    """Scores what is new in a folder.

    Args:
        settings: the folder, and what is done with its images.
        ledger: the results so far.
        champion: the model.
    """

    def __init__(self, settings: Settings, ledger: Ledger, champion: Champion) -> None:
        self.settings, self.ledger, self.champion = settings, ledger, champion
        self.seen = ledger.seen()
        self.before: dict[str, FileMark] = {}
        self.later: dict[str, float] = {}  # when to look again at a file that could not be read
        self.waiting = 0  # files of the last look that are not complete yet, or cannot be read now
        ledger.write_view()
        self._hand_on_all()

    def look(self) -> list[LedgerRow]:
        """Score the files that are new and complete since the look before. Return their rows."""
        now = look(self.settings.images)
        marks = {path: FileMark(found.st_ino, found.st_size, found.st_mtime_ns) for path, found in now.items()}
        for path in [path for path in self.seen if path not in marks]:
            self.ledger.forget(path)
            del self.seen[path]
        new = {path: mark for path, mark in marks.items() if self.seen.get(path) != mark}
        stable = untouched({path: now[path] for path in new}, self.settings.stable_seconds)
        moment = time.monotonic()
        ready = [
            path
            for path in sorted(stable, key=lambda path: now[path].st_ctime_ns)
            if self.before.get(path) == new[path] and self.later.get(path, 0) <= moment
        ]
        self.before = new
        final = set(untouched({path: now[path] for path in ready}, self.settings.late_seconds))
        rows = []
        starts = range(0, len(ready), CHUNK)
        # a bar for what has piled up, none for images that come one by one
        for start in starts if len(starts) < 2 else track(starts, "score", unit=f"{CHUNK} images"):
            rows += self._score({path: new[path] for path in ready[start : start + CHUNK]}, final)
        self.waiting = sum(self.seen.get(path) != mark for path, mark in new.items())
        self.later = {path: due for path, due in self.later.items() if path in new}
        return rows

    def _score(self, files: dict[str, FileMark], final: set[str]) -> list[LedgerRow]:
        scorer = self.champion.current
        read: dict[str, bytes] = {}
        for path in files:
            content = self._read(path, files[path])
            if content is not None:
                read[path] = content
        digests = {path: sha256(content).hexdigest() for path, content in read.items()}
        known = [path for path in read if self.ledger.has(identity(path, digests[path]))]
        for path in known:
            self.ledger.see(path, files[path])
            self.seen[path] = files[path]
            del read[path]
        rows = []
        for (path, content), found in zip(read.items(), predictions(scorer, list(read.values())), strict=True):
            if found.error and path not in final:  # it may still be written to
                self.later[path] = time.monotonic() + 1
                continue
            row = self._row(scorer, path, digests[path], content, found)
            training = self.settings.inbox is not None and not found.error
            self.ledger.add(row, path, files[path], training, self.settings.messages)
            self.seen[path] = files[path]
            self.ledger.append_view(row)
            rows.append(row)
        self._hand_on_all()
        return rows

    def _read(self, path: str, mark: FileMark) -> bytes | None:
        """Return the bytes of a file, or None if it has changed since its mark was taken, or cannot be read."""
        file = self.settings.images / path
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            if path not in self.later:
                print(f"{printable(str(file))} waits: {error.strerror}", file=sys.stderr, flush=True)
            self.later[path] = time.monotonic() + 1
            return None
        return content if mark_of(file) == mark else None

    def _row(self, scorer: ChampionScorer, path: str, digest: str, content: bytes, found: Prediction) -> LedgerRow:
        image = identity(path, digest)
        wanted = self.settings.pictures and not found.error
        name = self._draw(scorer, f"{PICTURES}/{image}.jpg", content, found) if wanted else ""
        cut = None if found.error or scorer.threshold is None else scorer.threshold.value
        error = printable(found.error.replace(f"the image given as {len(content)} bytes", Path(path).name))
        moment = datetime.now(UTC).isoformat(timespec="seconds")
        regions = region_columns(found)
        return LedgerRow(
            image, moment, printable(path), digest, scorer.name, found.score, cut, found.label, name, error,
            regions["regions"], regions["largest_area"], regions["largest_box"] or "",
        )  # fmt: skip

    def _draw(self, scorer: ChampionScorer, name: str, content: bytes, found: Prediction) -> str:
        """Write the picture `name` and return it; an empty name if it could not be drawn, as for want of memory."""
        try:
            picture = heat_picture(content, found, scorer.threshold, scorer.predictor.model.window)
        except (DataError, MemoryError, ValueError) as error:  # the score is worth more than its picture
            print(f"no picture {name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            return ""
        with replacing(self.ledger.folder / name) as temporary:
            picture.save(temporary, format="jpeg", quality=QUALITY)
        return name

    def _hand_on_all(self) -> None:
        """Copy the images that go to training to the inbox: those of this look, and what a kill left over."""
        for image, path, digest in self.ledger.for_training():
            file = self.settings.images / path
            if self.settings.inbox is None:
                return  # a later call with an inbox does it
            target = self.settings.inbox / inbox_name(image, path)
            try:
                # a copy, because the camera may write its next image over the file, and the links to it
                if file_digest(file) == digest and not target.exists():
                    with replacing(target) as temporary:
                        temporary.write_bytes(file.read_bytes())
            except FileNotFoundError:
                print(f"{printable(str(file))} has gone before it was copied to the inbox", file=sys.stderr, flush=True)
            self.ledger.handed_on(image)


def inbox_name(image: str, path: str) -> str:
    """Return the name of an image in the inbox: its own, with the beginning of its id, if that is not too long."""
    name = f"{image[:12]}-{Path(path).name}"
    return name if len(os.fsencode(name)) <= LONGEST_NAME else f"{image}{Path(path).suffix[:16]}"


def predictions(scorer: ChampionScorer, images: Sequence[bytes]) -> list[Prediction]:
    """Return one prediction per image. If several together fail, each of them is scored alone; a bad one says why."""
    try:
        return list(scorer.predictor.predict(images, scorer.threshold, scorer.pixels, scorer.min_area))
    except Exception as error:  # whatever a decoder or a detector raises, the other images are scored
        if len(images) == 1:
            said = str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
            return [Prediction(None, None, error=" ".join(said.split()))]
        return [predictions(scorer, [image])[0] for image in images]
