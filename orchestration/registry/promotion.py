"""The rule by which a detector becomes champion: no check has refused it, and nobody has rolled it back.

The first detector of a line is no exception. What cannot be compared is skipped, and a skipped check refuses nothing.
To judge and to promote are two steps: `registry challenge` and the asset `challenger` judge and move nothing;
`registry promote` and the asset `champion` move the alias. The asset, and the options `--if-accepted` and `--promote`,
follow the rule. People may promote any version.
"""

from collections.abc import Mapping

from orchestration.registry.store import REFUSED, WITHDRAWN


def refusal(tags: Mapping[str, str]) -> str | None:
    """Return why the rule keeps a version with these tags from becoming champion, or None if it does not."""
    if reason := tags.get(WITHDRAWN):
        return f"was {reason}"
    if reason := tags.get(REFUSED):
        return f"was refused ({reason})"
    return None
