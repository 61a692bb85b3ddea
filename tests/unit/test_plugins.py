"""Detectors, encoders and policies from outside the package: by module:Class, and by names that packages offer."""

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml

from llbnad.config import EncoderConfig, parse
from llbnad.detectors import DETECTORS, create_detector
from llbnad.encoders import ENCODERS, create_encoder, recipe
from llbnad.errors import ConfigError, DataError, PluginRefusedError
from llbnad.features.store import FeatureStore
from llbnad.inference.graph.torch_module import refuse
from llbnad.model.model import Model, train
from llbnad.policies import POLICIES
from llbnad.scenario import ScenarioSettings, plugin_modules
from llbnad.study.grid import TablePolicy
from llbnad.utils import plugins, registry
from orchestration.pipeline import settings
from orchestration.pipeline.code import ChangedError
from orchestration.registry.packaging import contents, plugin_packages
from orchestration.stages import params as params_stage
from orchestration.stages import settings as settings_stage
from tests.conftest import REPOSITORY

PARTS = '''
from typing import ClassVar, Literal

import numpy as np
import torch

from llbnad.config import DetectorConfig, SelectionPolicy
from llbnad.encoders.base import Encoded, Recipe

class BrightConfig(DetectorConfig):
    power: float = 1.0

class Bright:
    """Distance from the mean activation."""
    config_class: ClassVar = BrightConfig
    def __init__(self, config):
        self.config, self.mean = config, torch.zeros(1)
    def fit(self, features, image_ids, seed):
        total = sum(float(batch.maps[0].mean(dim=(1, 2, 3)).sum()) for batch in features.batches(image_ids, "fit"))
        self.mean = torch.tensor([total / len(image_ids)])
    def patch_maps(self, batch):
        return (batch.maps[0].mean(dim=1) - self.mean).abs() ** self.config.power
    def tensors(self):
        return {"mean": self.mean}
    def restore(self, tensors):
        self.mean = tensors["mean"]

class Half(SelectionPolicy):
    plus: int = 0
    def count(self, ordered):
        return len(ordered) // 2 + self.plus

class Pixels:
    """Every pixel is a patch."""
    def __init__(self, config, device):
        self.config = config
    @classmethod
    def describe(cls, config):
        return Recipe(config, "none", (0, 0, 0), (1, 1, 1))
    def encode(self, images):
        return Encoded([images.transpose(0, 3, 1, 2).astype(np.float16) / 255 for _ in self.config.layers], [])

class FixedConfig(DetectorConfig):
    name: Literal["fixed"] = "fixed"

class Fixed(Bright):
    config_class: ClassVar = FixedConfig

class Unconfigured:
    def fit(self): ...

class Unfinished:
    config_class: ClassVar = BrightConfig
    def fit(self): ...
    def tensors(self): ...

class Countless(SelectionPolicy):
    pass

nothing = 3
'''
ENTRY_POINTS = """
[llbnad.detectors]
bright = {module}:Bright
patchcore = {module}:Bright
[llbnad.policies]
half = {module}:Half
[llbnad.encoders]
pixels = {module}:Pixels
"""


@pytest.fixture(autouse=True)
def fresh_look():
    """Make modules that a test puts on Python's path visible to this test alone."""
    registry._offered.cache_clear()
    yield
    registry._offered.cache_clear()


@pytest.fixture
def parts(tmp_path, monkeypatch, request):
    """The name of a package on Python's path, one per test: `PARTS` is its module `parts`."""
    name = f"own_{abs(hash(request.node.name)):x}"
    folder = tmp_path / "path" / name
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "parts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(folder.parent)
    return name


def offer(folder: Path, package: str, distribution: str, installed: bool = False) -> None:
    """Make `package` look like an installed distribution that offers names."""
    info = folder / f"{distribution.replace('-', '_')}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n")
    (info / "top_level.txt").write_text(f"{package}\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS.format(module=f"{package}.parts"))
    if installed:
        (info / "RECORD").write_text("".join(f"{package}/{name},,\n" for name in ("__init__.py", "parts.py")))


def test_a_place_is_a_name_in_every_setting(parts):
    content = {
        "encoder": {"name": f"{parts}.parts:Pixels", "input_size": 32},
        "detector": f"{parts}.parts:Bright",
        "sub_model_detector": {"name": f"{parts}.parts:Bright", "power": 2.0},
        "selection": {"policy": f"{parts}.parts:Half", "plus": 1},
    }
    found = parse(ScenarioSettings, content, "x")
    assert found.detector.power == 1 and found.stage_1_detector.power == 2
    assert found.selection.count(np.arange(10.0)) == 6
    written = json.loads(found.model_dump_json())
    assert written["detector"] == {"name": f"{parts}.parts:Bright", "power": 1.0}
    assert parse(ScenarioSettings, written, "x") == found
    assert type(create_detector(found.detector)).__name__ == "Bright"
    encoded = create_encoder(found.encoder, "cpu").encode(np.zeros((2, 32, 32, 3), np.uint8))
    assert encoded.maps[0].shape == (2, 3, 32, 32)
    assert plugin_modules(found) == {f"{parts}.parts"}
    assert plugin_modules(ScenarioSettings()) == set()
    assert parse(TablePolicy, {"selection": {"policy": f"{parts}.parts:Half"}}, "grid").selection.plus == 0


@pytest.mark.parametrize(
    ("key", "name", "message"),
    [
        ("detector", "{}.gone:Bright", r"there is no module '{}\.gone': install the package that brings it, or put"),
        ("detector", "nowhere_at_all:Bright", "there is no module 'nowhere_at_all'"),
        ("detector", "{}.parts:Gone", r"the module {}\.parts has no 'Gone'"),
        ("detector", "{}.parts:nothing", "cannot be used: it is not a class"),
        ("detector", "{}.parts:Unconfigured", "Unconfigured has no config_class, a subclass of llbnad.config.Detector"),
        ("detector", "{}.parts:Unfinished", "Unfinished has no method patch_maps, restore"),
        ("detector", "{}.parts:Fixed", r"FixedConfig cannot hold the name '{}\.parts:Fixed': write `name: str`"),
        ("detector", "{}/parts:Bright", r"expected module:Class, such as my_package\.parts:Mine"),
        ("detector", "bright", r"unknown detector 'bright'; there are \['anomalib', .*, and module:Class for one"),
        ("selection", "{}.parts:Bright", "Bright is not a subclass of llbnad.config.SelectionPolicy"),
        ("selection", "{}.parts:Countless", "Countless has no method count"),
        ("encoder", "{}.parts:Bright", r"x: encoder\.name: .*Bright has no method describe, encode"),
    ],
)
def test_what_cannot_be_used_is_said(parts, key, name, message):
    with pytest.raises(ConfigError, match=message.replace("{}", parts)):
        parse(ScenarioSettings, {key: name.replace("{}", parts)}, "x")


def test_a_module_that_fails_in_an_import_of_its_own_names_that_import(parts, tmp_path):
    (tmp_path / "path" / parts / "broken.py").write_text("import gone_for_good\n")
    with pytest.raises(ValueError, match="there is no module 'gone_for_good'"):
        DETECTORS.get(f"{parts}.broken:Bright")


def test_installed_packages_offer_names(parts, tmp_path):
    offer(tmp_path / "path", parts, "own-parts")
    found = parse(ScenarioSettings, {"detector": "bright", "selection": "half", "encoder": "pixels"}, "x")
    assert found.detector.name == "bright" and found.selection.policy == "half" and found.encoder.name == "pixels"
    assert type(create_detector(found.detector)).__name__ == "Bright"
    assert recipe(found.encoder).weights == "none"
    with pytest.raises(
        ValueError, match=r"selection policy 'magic'; there are \['adaptive', 'fraction', 'half', 'mad'"
    ):
        POLICIES.get("magic")
    assert "half" not in POLICIES.names and "pixels" not in ENCODERS.names  # these are the built-in ones
    assert plugin_modules(found) == {f"{parts}.parts"}


def test_a_built_in_name_stays_ours_and_a_name_offered_twice_is_nobody_s(parts, tmp_path):
    offer(tmp_path / "path", parts, "own-parts")
    assert DETECTORS.get("patchcore").__module__ == "llbnad.detectors.patchcore.detector"
    assert DETECTORS.plugin_module("patchcore") == ""
    twin = tmp_path / "path" / f"{parts}_twin"
    twin.mkdir()
    (twin / "parts.py").write_text(PARTS)
    offer(tmp_path / "path", twin.name, "twin-parts")
    registry._offered.cache_clear()
    with pytest.raises(
        ValueError, match=r"detector 'bright' is offered by .*: write module:Class, or uninstall"
    ) as said:
        DETECTORS.get("bright")
    assert f"own-parts 1.5 ({parts}.parts:Bright)" in str(said.value)
    assert f"twin-parts 1.5 ({twin.name}.parts:Bright)" in str(said.value)
    assert DETECTORS.get(f"{twin.name}.parts:Bright").__module__ == f"{twin.name}.parts"


@pytest.fixture
def model_file(parts, few_cells, tmp_path):
    manifest, root = few_cells
    config = parse(ScenarioSettings, {"detector": {"name": f"{parts}.parts:Bright", "power": 2.0}}, "x").detector
    encoder = EncoderConfig(name=f"{parts}.parts:Pixels", input_size=32)
    store = FeatureStore(tmp_path / "features", encoder, manifest, root)
    model = train(encoder, config, store, manifest["image_id"].tolist(), seed=0)
    model.save(tmp_path / "own.safetensors")
    return tmp_path / "own.safetensors", model.score(store, manifest["image_id"].tolist()).values, store


def forget(package: str) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]


def test_a_model_file_imports_a_module_only_with_permission(model_file, parts, tmp_path):
    path, scores, store = model_file
    marker = tmp_path / "imported"
    module = tmp_path / "path" / parts / "parts.py"
    module.write_text(f"open({str(marker)!r}, 'w').close()\n{PARTS}")
    forget(parts)
    with pytest.raises(PluginRefusedError, match=rf"names {parts}\.parts:Pixels: loading it imports .*`--plugins`"):
        Model.load(path)
    assert not marker.exists() and parts not in sys.modules  # not even its package
    loaded = Model.load(path, plugins=True)
    assert marker.exists()
    assert np.array_equal(loaded.score(store, store.image_ids).values, scores)
    assert loaded.config.power == 2
    Model.load(path)  # it is imported now


def test_an_encoder_that_is_no_network_is_refused_before_an_image_is_read(model_file, parts):
    path, *_ = model_file
    with pytest.raises(ConfigError, match=rf"encoder {parts}\.parts:Pixels cannot be exported: it has no torch"):
        refuse(Model.load(path, plugins=True))


def test_a_model_file_whose_module_is_not_here_names_it(model_file, parts, monkeypatch):
    path, *_ = model_file
    forget(parts)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if not (Path(place) / parts).is_dir()])
    for plugins_allowed in (False, True):
        with pytest.raises(DataError, match=f"there is no module '{parts}': install the package that brings it"):
            Model.load(path, plugins=plugins_allowed)


def test_a_name_offered_by_an_installed_package_needs_no_permission(parts, few_cells, tmp_path):
    offer(tmp_path / "path", parts, "own-parts")
    manifest, root = few_cells
    config = parse(ScenarioSettings, {"detector": "bright"}, "x").detector
    encoder = EncoderConfig(input_size=32)
    store = FeatureStore(tmp_path / "features", encoder, manifest, root)
    train(encoder, config, store, manifest["image_id"].tolist()[:4], seed=0).save(tmp_path / "named.safetensors")
    forget(parts)
    assert Model.load(tmp_path / "named.safetensors").config.name == "bright"


def test_the_code_s_version_is_the_package_s_or_the_files_digest(parts, tmp_path):
    module, file = f"{parts}.parts", tmp_path / "path" / parts / "parts.py"
    assert plugins.requirement(module) is None
    digest = plugins.code_version(module)
    assert digest.startswith("sha256:")
    file.write_text(PARTS + "\n# edited\n")
    edited = plugins.code_version(module)
    assert edited != digest and edited.startswith("sha256:")
    offer(tmp_path / "path", parts, "own-parts")  # linked to a working folder: its files are not in any RECORD
    assert plugins.requirement(module) == "own-parts==1.5" and plugins.code_version(module) == edited
    (tmp_path / "path" / "own_parts-1.5.dist-info").rename(tmp_path / "away")
    offer(tmp_path / "path", parts, "own-parts", installed=True)
    importlib.invalidate_caches()
    assert plugins.code_version(module) == "own-parts==1.5"


def test_a_served_model_says_which_package_it_needs(model_file, parts, tmp_path, capsys):
    path, *_ = model_file
    assert plugin_packages(path) == {f"{parts}.parts": None}
    assert (
        f"WARNING: {path} needs the module {parts}.parts, which no installed package brings" in capsys.readouterr().err
    )
    offer(tmp_path / "path", parts, "own-parts")
    packed = contents(path, {}, {"scenario": "s"})
    assert packed["metadata"] == {"scenario": "s", "plugins": {f"{parts}.parts": "own-parts==1.5"}}
    assert "own-parts==1.5" in packed["pip_requirements"]
    assert capsys.readouterr().err == ""


def test_a_served_model_imports_what_it_was_registered_with(model_file, parts, few_cells, monkeypatch):
    from orchestration.registry.pyfunc_model import LlbnadModel

    path, scores, _ = model_file
    forget(parts)
    manifest, root = few_cells
    monkeypatch.setenv("LLBNAD_SERVE_FOLDER", str(root))
    served = LlbnadModel()
    served.load_context(SimpleNamespace(artifacts={"model": str(path)}))
    images = pd.DataFrame({"path": [str(root / image) for image in manifest["path"]]})
    assert served.predict(None, images)["score"].tolist() == pytest.approx(scores.tolist())


def test_a_model_of_ours_needs_no_package_more(model_files):
    packed = contents(model_files["patchcore"], {}, {"scenario": "s"})
    assert packed["metadata"] == {"scenario": "s"}
    assert all((Path(folder) / "model" / "model.py").is_file() for folder in packed["code_paths"])


def test_settings_of_the_pipeline_follow_the_code_of_a_plug_in(parts, tmp_path, monkeypatch):
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    own = params["scenarios"]["elpv_mono_a20"]
    params["scenarios"]["own"] = {**own, "selection": {"policy": f"{parts}.parts:Half", "plus": 0}}
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(yaml.safe_dump(params))
    params_stage.main()
    for scenario in ("elpv_mono_a20", "own"):
        settings_stage.main(scenario)
    known, content = (json.loads(settings.settings_path(name).read_text()) for name in ("elpv_mono_a20", "own"))
    assert content["selection"].pop(settings.PLUGIN_VERSION) == plugins.code_version(f"{parts}.parts")
    assert content == {**known, "selection": params["scenarios"]["own"]["selection"]}  # nothing else is another
    before = settings.read_settings("own")
    assert before.scenario("own").selection.plus == 0
    assert settings.are_current(tmp_path, "own", before)
    file = tmp_path / "path" / parts / "parts.py"
    file.write_text(PARTS + "\n# edited\n")
    assert not settings.are_current(tmp_path, "own", before)
    with pytest.raises(ChangedError, match=r"code of own's selection is .* --force --single-item settings@own`, then"):
        settings.read_settings("own")
    assert settings.read_settings("elpv_mono_a20")
    settings_stage.main("own")
    assert settings.read_settings("own") == before
