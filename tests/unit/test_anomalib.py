"""Models of anomalib in both stages on real cells: they must not download, leave files or disturb other code."""

import importlib.util
import socket

import numpy as np
import pytest
import torch

from llbnad.config import EncoderConfig, InjectedNoise, parse
from llbnad.data.contaminate import contaminate
from llbnad.detectors.anomalib.detector import AnomalibConfig
from llbnad.encoders.efficientnet_lite import trained_network
from llbnad.errors import ConfigError, OfflineError
from llbnad.features.store import FeatureStore
from llbnad.inference.write import predict
from llbnad.model.model import Model, train
from llbnad.policies.fraction import Fraction
from llbnad.scenario import ScenarioSettings
from llbnad.two_stage import run_two_stage
from llbnad.utils.files import file_digest
from llbnad.utils.offline import no_downloads

anomalib = pytest.mark.skipif(
    importlib.util.find_spec("anomalib") is None, reason="anomalib is not installed: pip install 'anomalib==2.7.0'"
)
ENCODER = EncoderConfig(input_size=64)
MODELS = [
    AnomalibConfig(model="Padim", options={"n_features": 20}),
    AnomalibConfig(model="Stfpm", epochs=2, batch=4),
    AnomalibConfig(model="Patchflow", epochs=1, batch=4),
]


@pytest.fixture
def features(few_cells, tmp_path):
    manifest, root = few_cells
    return FeatureStore(tmp_path / "cache", ENCODER, manifest, root, batch_size=8)


@anomalib
@pytest.mark.parametrize("config", MODELS, ids=lambda config: config.model)
def test_both_stages_without_features_or_files(config, few_cells, features, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    manifest, root = few_cells
    noisy = contaminate(manifest, InjectedNoise(ratio=0.2, max_ratio=0.2, test_share=0.3), 0)
    settings = ScenarioSettings(
        encoder=ENCODER,
        detector=config,
        sub_model_detector=None,
        subsets=2,
        selection=Fraction(keep=0.6),
        comparators=("none",),
    )
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    result = run_two_stage(noisy, features, root, settings)
    assert torch.equal(torch.rand(3), expected)
    assert 0 <= result.evaluation.metrics()["image_auroc"] <= 1
    assert len(result.purified.kept) == 6 and result.scores["score"].std() > 0
    assert list(tmp_path.iterdir()) == []  # neither features nor anomalib's results, nor Lightning's logs


@anomalib
@pytest.mark.parametrize("config", MODELS[:2], ids=lambda config: config.model)
def test_same_seed_same_bytes_and_a_saved_model_scores_the_same(config, few_cells, features, tmp_path):
    manifest, root = few_cells
    ids = manifest["image_id"].tolist()
    first = train(ENCODER, config, features, ids[:8], 0)
    second = train(ENCODER, config, features, ids[:8][::-1], 0)
    first.save(tmp_path / "a.safetensors")
    second.save(tmp_path / "b.safetensors")
    assert file_digest(tmp_path / "a.safetensors") == file_digest(tmp_path / "b.safetensors")
    assert np.array_equal(Model.load(tmp_path / "a.safetensors").score(features, ids).values,
                          first.score(features, ids).values)  # fmt: skip
    paths = [root / path for path in manifest["path"][:3]]
    table = predict(first, paths, tmp_path / "out")
    assert np.allclose(table["score"], first.score(features, ids[:3]).values, rtol=1e-4)
    maps = first.detector.patch_maps(next(features.batches(ids[:3], "maps")))
    assert maps.shape == (3, 8, 8)


@anomalib
def test_stfpm_learns_from_our_weights(features):
    ids = features.image_ids[:8]
    model = train(ENCODER, MODELS[1], features, ids, 0)
    tensors = model.detector.tensors()
    teacher = tensors["model.model.teacher_model.feature_extractor.conv_stem.weight"]
    student = tensors["model.model.student_model.feature_extractor.conv_stem.weight"]
    assert torch.equal(teacher, trained_network().state_dict()["conv_stem.weight"])
    assert not torch.equal(teacher, student)


@anomalib
def test_unknown_names_say_what_exists(features):
    with pytest.raises(ConfigError, match=r"no image model 'Padin'; there are .*'Padim'"):
        train(ENCODER, AnomalibConfig(model="Padin"), features, features.image_ids[:4], 0)
    with pytest.raises(ConfigError, match=r"has no \['layer_names'\]; there are .*'layers'"):
        train(ENCODER, AnomalibConfig(options={"layer_names": []}), features, features.image_ids[:4], 0)
    with pytest.raises(ConfigError, match=r"Fastflow cannot be built .* backbone llbnad.*resnet18"):
        train(ENCODER, AnomalibConfig(model="Fastflow"), features, features.image_ids[:4], 0)
    for model in ("SuperADD", "VlmAd"):  # one cannot have our backbone, the other cannot be trained
        with pytest.raises(ConfigError, match=f"anomalib's {model} .*detector.options"):
            train(ENCODER, AnomalibConfig(model=model), features, features.image_ids[:4], 0)


@anomalib
def test_a_download_is_refused_at_once_with_the_remedy(features):
    config = AnomalibConfig(model="Stfpm", options={"backbone": "resnet18", "layers": ["layer1"]})
    with pytest.raises(OfflineError, match=r"Stfpm wants to download its weights from .*detector\.download"):
        train(ENCODER, config, features, features.image_ids[:4], 0)


def test_swallowed_downloads_are_refused_too():
    resolve = socket.getaddrinfo
    for failure in (OSError, None):
        with pytest.raises(OfflineError, match=r"it wants to download its weights from example\.org: do"):  # noqa: SIM117
            with no_downloads("it", "do without"):
                try:
                    socket.create_connection(("example.org", 80))
                except OfflineError:
                    if failure:
                        raise failure("no weights") from None
        assert socket.getaddrinfo is resolve


def test_settings_come_from_a_mapping():
    content = {"detector": {"name": "anomalib", "model": "Stfpm", "options": {"backbone": "resnet18"}}}
    assert parse(ScenarioSettings, content, "here").detector.options == {"backbone": "resnet18"}
