"""A challenge: stage 2's detector of a line is judged against the champion and registered with the findings.

The findings are in the report (mlflow/registry/<scenario>.json), in the tags of the version and, through Dagster, in
asset checks. Registering is idempotent: equal bytes of a model are one version.
"""

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llbnad.config import METHOD
from llbnad.data.manifest import is_anomalous, read_manifest
from llbnad.errors import DataError
from llbnad.monitoring import challenger_checks
from llbnad.monitoring.finding import Finding, decided
from llbnad.monitoring.novelty import Novelty, novelty
from llbnad.monitoring.probe import Probe, retake, take_probe
from llbnad.monitoring.sensitivity_check import UNREADABLE, Compared, common_images, compare
from llbnad.monitoring.verdict_check import judged_images
from llbnad.purification.verdicts import read_verdicts
from llbnad.utils.files import file_digest, write_json
from orchestration.pipeline.outputs import read_noisy, read_purified, read_summary
from orchestration.pipeline.params import Params
from orchestration.pipeline.paths import stage_dir
from orchestration.pipeline.settings import read_settings
from orchestration.registry.comparison_files import comparison_files, write_alarms, write_comparison
from orchestration.registry.model_card import CARD, describe, facts, model_card, read_metrics, write_card
from orchestration.registry.packaging import contents, logged_name
from orchestration.registry.store import (
    MD5,
    REFUSED,
    SENSITIVITY,
    UNPROVEN,
    WITHDRAWN,
    champion_of,
    model_name,
    registry_client,
    version_page,
    versions,
)
from orchestration.tracking.mlflow_runs import reopened, scenario_run
from orchestration.tracking.provenance import git_tags, lock_tags
from orchestration.tracking.server import MLFLOW_FOLDER

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from llbnad.features.store import FeatureStore
    from llbnad.model.model import Model

PROBE, LEARNT = "probe.json", "kept.parquet"  # files of a version: scores to compare, and the images it learnt
PROVENANCE = ("raw", "settings", "noisy", "purified", "detector")  # stages whose dvc.lock hashes the MLmodel file has
INSPECTED = ("dvc.raw", "dvc.purified")  # those that are tags as well, since the inspection page reads them
LOCK_SECONDS = 600  # another challenge of the same line may be uploading
STANDING = "standing"  # the check that a version was not rolled back by hand
CHECKS = (*challenger_checks.CHECKS, STANDING)


def report_path(scenario: str) -> Path:
    """Return the JSON file of a scenario's latest challenge."""
    return MLFLOW_FOLDER / "registry" / f"{scenario}.json"


def challenge(scenario: str) -> dict[str, Any]:
    """Judge and register the detector of `scenario`. The alias `champion` does not move.

    Returns:
        the report: name, version, registered (whether the version is new), md5, champion (its version or None),
        findings, advice (what to know before one trusts the version; None if it was compared with a champion),
        facts (see `orchestration.registry.model_card.facts`), page (address of the version in MLflow's pages).

    Raises:
        DataError: there is no detector yet.
        RegistryError: the tracking server does not answer.
    """
    from filelock import FileLock

    settings = read_settings(scenario)
    path = stage_dir("detector", scenario) / f"{METHOD}.safetensors"
    if not path.exists():
        raise DataError(f"no detector at {path}: run `dvc repro evaluation@{scenario}` first")
    MLFLOW_FOLDER.mkdir(exist_ok=True)
    for old in (report_path(scenario), *comparison_files(scenario)):
        old.unlink(missing_ok=True)  # if this challenge fails, no older report must stand for it
    with (
        registry_client(scenario) as client,
        FileLock(MLFLOW_FOLDER / f".registry-{scenario}.lock", timeout=LOCK_SECONDS),
    ):
        client.search_registered_models(max_results=1)  # fails here, before any computing, if the server is down
        md5 = file_digest(path, "md5")
        known = next((one for one in versions(client, scenario) if one.tags.get(MD5) == md5), None)
        champion = champion_of(client, scenario)
        own, findings = _judge(scenario, settings, path, champion)
        withdrawn = known.tags.get(WITHDRAWN) if known else None
        findings.append(decided(STANDING, withdrawn is None, withdrawn or "not rolled back", "not rolled back by hand"))
        in_use = known is not None and champion is not None and str(known.version) == str(champion.version)
        # a champion that is compared with itself has still proved nothing
        unproven = champion.tags.get(UNPROVEN) if in_use and champion is not None else None
        advice = challenger_checks.UNPROVEN if champion is None else unproven
        refused = not in_use and any(finding.failed for finding in findings)
        shown = None if refused else advice  # the reasons of a refusal say what to do
        card = model_card(path, read_metrics(scenario), findings, shown, in_use)
        version = known.version if known else _add_version(client, scenario, settings, path, own, md5, card)
        _tag(client, scenario, str(version), findings, advice, in_use)
        describe(client, scenario, str(version), card)
        with scenario_run(scenario, settings) as run:
            run.add_version(str(version), md5)
    report = {
        "name": model_name(scenario),
        "version": str(version),
        "registered": known is None,
        "md5": md5,
        "champion": str(champion.version) if champion else None,
        "findings": [vars(finding) for finding in findings],
        "advice": shown,
        "facts": facts(path, read_metrics(scenario)),
        "page": version_page(scenario, str(version)),
    }
    write_json(report, report_path(scenario))
    return report


def _judge(scenario: str, settings: Params, path: Path, version: "ModelVersion | None") -> tuple[Probe, list[Finding]]:
    from llbnad.inference.predict import Predictor
    from llbnad.model.model import Model
    from orchestration.pipeline.features import IMAGE_ROOT, feature_store

    store = feature_store(settings, scenario)
    noisy = read_noisy(scenario)
    kept, rejected = (read_purified(scenario, name)["image_id"] for name in ("kept", "rejected"))
    # an image that a detector learnt is no test of it, so only images that are set aside for testing count
    tested = noisy[noisy["split"] == "test"]
    known = tested[tested["anomaly_class"].notna()]
    labels = dict(zip(known["image_id"], is_anomalous(known).astype(bool).tolist(), strict=True))
    model = Model.load(path, store.device)
    n_overruled = read_summary(scenario).get("n_overruled") or 0
    size = settings.promotion.probe_size
    own = take_probe(model, store, kept, rejected, labels, size, n_overruled=int(n_overruled))
    verdicts = read_verdicts(Path(settings.scenario(scenario).review))
    names = dict(zip(noisy["image_id"], noisy["path"], strict=True))
    if version is None:
        judged = judged_images(model, store, verdicts, set(kept), names)
        return own, challenger_checks.judge(own, None, None, settings.promotion, model.threshold, judged=judged)
    held = _artifacts(version)
    readable = _readable(held / path.name, store)
    champion = readable if readable is not None and _sees_alike(readable, store) else None
    judged = judged_images(model, store, verdicts, set(kept), names, champion)
    held_probe = Probe.of(json.loads((held / PROBE).read_text()))
    before, again = retake(held_probe, model, store, set(store.image_ids), set(tested["image_id"]), own)
    learnt: Novelty | None = None
    drawn: Compared | str = UNREADABLE
    if (held / LEARNT).exists():  # versions of earlier releases lack this file
        unseen = [image_id for image_id in kept if verdicts.get(image_id) != "normal"]
        learnt_before = read_manifest(held / LEARNT)["image_id"]
        seed = settings.scenario(scenario).seed
        learnt = novelty(champion, learnt_before, unseen, store, noisy, IMAGE_ROOT, seed)
        if champion is not None and learnt.alarms:
            write_alarms(scenario, champion, learnt.alarms, store.device)
        if readable is not None:
            pool = common_images(noisy, kept, learnt_before)
            new, old = (Predictor(one, store.device, settings.runtime.batch_size) for one in (model, readable))
            drawn = compare(new, old, pool, IMAGE_ROOT, settings.promotion.sensitivity_images)
    if readable is not None and readable.digest() != model.digest():
        write_comparison(scenario, readable, model, before, again, noisy, store.device)
    return own, challenger_checks.judge(own, before, again, settings.promotion, model.threshold, learnt, judged, drawn)


def _artifacts(version: "ModelVersion") -> Path:
    import mlflow

    return Path(mlflow.artifacts.download_artifacts(f"models:/{version.name}/{version.version}/artifacts"))


def _readable(path: Path, store: "FeatureStore") -> "Model | None":
    """Return the detector of a version, or None if the weights of its encoder are not on this machine any more."""
    from llbnad.model.model import Model

    try:
        return Model.load(path, store.device, plugins=True)  # trusted, because the pipeline registered it
    except DataError:  # other weights of the same encoder
        return None


def _sees_alike(model: "Model", store: "FeatureStore") -> bool:
    """Return whether a detector works on the features of `store`, and on the same region."""
    same_region = store.region is None if model.region is None else model.region.equals(store.region)
    return bool(model.encoder == store.config and same_region)


def _add_version(
    client: "MlflowClient", scenario: str, settings: Params, path: Path, own: Probe, md5: str, card: str
) -> str:
    import mlflow

    hashes = lock_tags(scenario, settings, PROVENANCE)
    with scenario_run(scenario, settings) as run:
        pass
    with tempfile.TemporaryDirectory() as folder, reopened(client, run.parent):
        probe = Path(folder) / PROBE
        write_json(own.content(), probe)
        learnt = stage_dir("purified", scenario) / LEARNT
        info = mlflow.pyfunc.log_model(
            name=logged_name(settings.scenario(scenario).detector.name),
            registered_model_name=model_name(scenario),
            tags={"mlflow.note.content": card},
            **contents(path, {"probe": probe, "learnt": learnt}, {"scenario": scenario, MD5: md5, **hashes}),
        )
        shown = write_card(Path(folder) / "files" / CARD, card, scenario)
        client.log_model_artifacts(info.model_id, str(Path(folder) / "files"))
    version = str(info.registered_model_version)
    read_again = {name: value for name, value in hashes.items() if name in INSPECTED}
    tags = {**git_tags(), **read_again, **facts(path, read_metrics(scenario)), CARD: " ".join(shown)}
    for tag, value in {**tags, MD5: md5}.items():  # the md5 last, because it marks a complete version
        client.set_model_version_tag(model_name(scenario), version, tag, value)
    return version


def _tag(
    client: "MlflowClient", scenario: str, version: str, findings: list[Finding], advice: str | None, in_use: bool
) -> None:
    """Write findings, advice and sensitivity as tags of the version. A tag that no longer holds is removed.

    The version in use is not marked as refused: it would be refused if it came now, which the findings say.
    """
    name = model_name(scenario)
    client.set_model_version_tag(name, version, "checks", json.dumps([vars(finding) for finding in findings]))
    lost = [] if in_use else [one for one in findings if one.failed]
    reasons = [f"{one.name}: {one.observed}, expected {one.expected}" for one in lost]
    known = client.get_model_version(name, version)
    drawn = read_metrics(scenario).get("sensitivity_line")
    for tag, text in ((REFUSED, "; ".join(reasons)), (UNPROVEN, advice), (SENSITIVITY, drawn)):
        if text:
            client.set_model_version_tag(name, version, tag, text)
        elif tag in known.tags:
            client.delete_model_version_tag(name, version, tag)
