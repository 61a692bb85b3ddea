"""A manifest that is not what was written is refused in one line that names the file."""

import pandas as pd
import pytest

from llbnad.data.manifest import read_manifest, write_manifest
from llbnad.errors import DataError
from tests.conftest import made_manifest

WHOLE = made_manifest(normal=3, anomalous=1)
CHANGES = {
    "a cell is empty": (WHOLE.assign(path=None), "is no manifest .*path: string not null"),
    "another type": (WHOLE.assign(path=7), "is no manifest"),
    "mixed types": (WHOLE.assign(width=[8, 8, 8, 2**40]), "is no manifest"),
    "a column is missing": (WHOLE.drop(columns="split"), r"lacks the columns \['split'\]"),
    "twice the same": (pd.concat([WHOLE, WHOLE]), "4 image ids occur twice"),
}


@pytest.mark.parametrize(("frame", "message"), CHANGES.values(), ids=CHANGES)
def test_a_table_of_another_form_is_refused(tmp_path, frame, message):
    frame.to_parquet(tmp_path / "m.parquet")
    with pytest.raises(DataError, match=rf"m\.parquet.*{message}") as caught:
        read_manifest(tmp_path / "m.parquet")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", [0, 100, -1])
def test_a_damaged_file_is_refused(tmp_path, cut):
    write_manifest(WHOLE, tmp_path / "m.parquet")
    assert read_manifest(tmp_path / "m.parquet")["path"].tolist() == WHOLE["path"].tolist()
    (tmp_path / "m.parquet").write_bytes((tmp_path / "m.parquet").read_bytes()[:cut])
    with pytest.raises(DataError, match=r"m\.parquet is no manifest"):
        read_manifest(tmp_path / "m.parquet")
