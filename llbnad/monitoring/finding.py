"""The outcome of one check of a new detector: passed, failed, or skipped because there was nothing to check."""

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class Finding:
    """The outcome of one check. A check that was skipped neither refuses a detector nor speaks for it."""

    name: str
    outcome: Outcome
    observed: str  # what was seen; for a skipped check: why there was nothing to see
    expected: str

    @property
    def failed(self) -> bool:
        """Whether the check refuses the detector."""
        return self.outcome == "failed"

    @property
    def skipped(self) -> bool:
        """Whether there was nothing to check."""
        return self.outcome == "skipped"


def decided(name: str, passed: bool, observed: str, expected: str) -> Finding:
    """Return the finding of a check that could be made."""
    return Finding(name, "passed" if passed else "failed", observed, expected)


def skipped(name: str, why: str, expected: str) -> Finding:
    """Return the finding of a check that could not be made."""
    return Finding(name, "skipped", why, expected)
