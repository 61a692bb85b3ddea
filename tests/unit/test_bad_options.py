"""Values of options that are no good: each is one clear line with exit code 2, never a traceback."""

import numpy as np
import pytest
from PIL import Image

from llbnad import cli
from llbnad.config import USUAL_PIXELS, Runtime
from llbnad.data.images import load_rgb
from llbnad.errors import ConfigError, DataError, TooFewImagesError
from llbnad.purification.partition import assign_subsets
from llbnad.purification.sub_models import train_sub_model
from llbnad.scenario import make_settings
from llbnad.utils import pixel_limit
from llbnad.utils.runtime import prepare
from orchestration import __main__ as pipeline
from tests.conftest import made_manifest, save_image


@pytest.mark.parametrize("device", ["mps", "cuda:9", "cuda:-1", "cpu:3", "CPU", "", "gpu", "meta", "xpu", "\udcff"])
def test_a_device_that_is_not_there_is_named_beside_those_that_are(device):
    with pytest.raises(ConfigError, match=r"device is .*, but available here are auto, cpu.*: use one of these"):
        prepare(Runtime(device=device))


@pytest.fixture
def outcome(monkeypatch, capsys, tmp_path):
    """Return a function that runs a command in this process: exit code and what it says on stderr."""

    def run(program, *arguments):
        monkeypatch.setattr("sys.argv", ["program", *map(str, arguments)])
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as end:
            program.main()
        return end.value.code, capsys.readouterr().err

    return run


RUN = ("run", "--source", "image_folder", "--root", "images", "--category", "x", "--protocol", "as_is", "--out", "out")
HUGE = "9" * 30
NUMBERS = ("nan", "inf", "-inf", "-1", "", "1e999", HUGE, "2026-01-01", "\udcff")
TEXTS = [number for number in NUMBERS if number != HUGE]
SET = ("", "=", "seed", "seed=", "seed=nan", "seed=2026-01-01", "seed=[", "a.b=1", "\udcff=1", "seed=\udcff",
       "seed=!!python/object:os.x 1")  # fmt: skip
NAMED = ("--device", "--aggregation", "--policy", "--detector")
OPTIONS = [
    *((RUN, option, value) for option in ("--seed", "--suspects", "--threads", "--max-pixels") for value in TEXTS),
    *((RUN, option, value) for option in ("--keep", "--target-fpr") for value in NUMBERS),
    *((RUN, "--subsets", value) for value in (*NUMBERS, "0", "2.5", "many")),
    *((RUN, option, value) for option in NAMED for value in ("", "x", "\udcff")),
    *((RUN, "--set", value) for value in SET),
    *((RUN, "--config", value) for value in ("", "gone.yaml", ".")),
    *((RUN, "--review", value) for value in ("gone.csv", ".", "")),
    *((RUN[:-4], "--noise-ratio", value) for value in NUMBERS),
]  # fmt: skip


@pytest.mark.parametrize(("command", "option", "value"), OPTIONS)
def test_options_of_run(outcome, tmp_path, command, option, value):
    for number in range(4):
        save_image(tmp_path / "images" / f"{number}.png", number)
    command = command if "--out" in command else (*command, "--out", "out")
    code, said = outcome(cli, *command, option, value)
    assert code == 2 and "Traceback" not in said and said.strip()


@pytest.mark.parametrize(("option", "value"), [("--max-pixels", "100"), ("--intensity", "full"), ("--pages", "first")])
def test_an_option_on_files_is_refused_where_images_come_with_a_package(outcome, option, value):
    code, said = outcome(cli, "run", "--out", "out", option, value)
    assert code == 2 and said.startswith(f"error: {option} {value} has no effect on source elpv")


PREDICT = [
    *(("--fpr", value) for value in NUMBERS),
    *(("--device", value) for value in ("mps", "cuda:9", "", "\udcff")),
    *(("--threads", value) for value in ("-1", "nan", "")),
    *(("--max-pixels", value) for value in ("0", "-1", "nan", "", HUGE)),
]


@pytest.mark.parametrize("program", [cli, pipeline], ids=["llbnad", "orchestration"])
@pytest.mark.parametrize(("option", "value"), PREDICT)
def test_options_of_predict(outcome, tmp_path, model_files, program, option, value):
    image = save_image(tmp_path / "images" / "a.png")
    code, said = outcome(program, "predict", model_files["patchcore"], image, "--out", "out", option, value)
    assert code == 2 and "Traceback" not in said and said.strip()


def test_out_among_the_images_is_one_line(outcome, tmp_path, model_files):
    save_image(tmp_path / "images" / "a.png")
    code, said = outcome(cli, "predict", model_files["patchcore"], "images", "--out", "images/scored")
    assert code == 2 and said.startswith("error: --out images/scored lies in images:") and len(said.splitlines()) == 1


def test_too_few_images_of_a_subset_say_what_to_type():
    images = made_manifest(12, 0)
    settings = make_settings(
        {"detector": {"name": "padim"}, "sub_model_detector": None, "partition": "disjoint", "subsets": 8}, "test"
    )
    subsets = assign_subsets(images, settings.subsets, settings.seed)
    alone = int(subsets.value_counts().idxmin())
    with pytest.raises(TooFewImagesError) as error:
        train_sub_model(alone, None, subsets, settings)
    assert str(error.value) == (
        f"of 12 images subset {alone} has 1, and padim needs at least 2 training images, got 1: "
        "use --subsets 2, another seed or more images"
    )


def test_a_camera_that_froze_is_named_in_the_last_line(outcome, tmp_path):
    for number in range(4):
        save_image(tmp_path / "images" / f"{number}.png")
        (tmp_path / "images" / f"{number}.png").open("ab").write(bytes([number]))
    code, said = outcome(cli, *RUN)
    assert code == 2 and said.splitlines()[-1] == (
        "error: 1 training sample is too few: 2 are needed, better some hundred; "
        "3 files were left out (3 duplicate): left_out.csv says why"
    )


def test_the_most_pixels_of_an_image_can_be_set(tmp_path, monkeypatch):
    monkeypatch.setattr(pixel_limit, "_pixels", USUAL_PIXELS)
    Image.fromarray(np.zeros((10, 20), np.uint8)).save(tmp_path / "a.png")
    pixel_limit.limit_pixels(199)
    with pytest.raises(DataError, match="too large: 20 × 10 pixels, at most 199"):
        load_rgb(tmp_path / "a.png")
    pixel_limit.limit_pixels(200)
    assert load_rgb(tmp_path / "a.png").size == (20, 10)
