"""Picture `review_page.jpg`: the review page of the demo, with three verdicts."""

from pathlib import Path

from benchmarks.pictures.browser import photograph
from benchmarks.pictures.demo import SCENARIO, Demo
from llbnad.data.manifest import training_images
from llbnad.features.image_vectors import image_vectors
from llbnad.review.decision import decided
from llbnad.review.page import GRID, build_suspects, choose_suspects, near_duplicates, review_page


def draw(demo: Demo, out: Path) -> None:
    """Photograph the review page of the demo, with three verdicts already in the review file."""
    scores, purified = demo.run.scores, demo.run.purified
    ranked = scores["score"].sort_values(ascending=False).index
    kept = [one for one in ranked if one in set(purified.kept)]
    verdicts = {ranked[1]: "normal", kept[0]: "defect", kept[2]: "exclude"}
    reasons = choose_suspects(scores, purified, verdicts, 24)
    ids = sorted(reasons.index)
    groups = near_duplicates(ids, image_vectors(demo.store, ids, GRID, "near-duplicates"))
    heat = {one: demo.run.heat[one] for one in ids}
    decision = decided(scores["score"], purified, demo.settings.aggregation)
    suspects = build_suspects(training_images(demo.noisy), scores, reasons, decision, groups, heat, demo.root)
    page = review_page(SCENARIO, suspects, verdicts, decision, decision.scale(heat), demo.run.notes)
    (demo.work / "review.html").write_text(page, encoding="utf-8")
    photograph(demo.work / "review.html", demo.work, out / "review_page.jpg")
