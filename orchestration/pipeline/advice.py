"""What to do in the pipeline about errors of the library, which knows neither stages nor DVC."""

from llbnad.errors import (
    ImageChangedError,
    ImageGoneError,
    LlbnadError,
    ManifestMissingError,
    ModelMissingError,
    SubModelsError,
)

READ_AGAIN = "`dvc checkout` restores the images that DVC keeps, `dvc repro raw` reads the data sets again"
ADVICE: dict[type[LlbnadError], str] = {
    ImageGoneError: READ_AGAIN,
    ImageChangedError: READ_AGAIN,
    ManifestMissingError: "`dvc repro` runs the stage that writes it",
    ModelMissingError: "`dvc repro` runs the stage that trains it",
    SubModelsError: "`dvc repro sub_model` trains and scores again",
}


def with_advice(error: LlbnadError) -> str:
    """Return the error's message, followed by what to do about it where that is known."""
    advice = next((text for kind, text in ADVICE.items() if isinstance(error, kind)), None)
    return str(error) if advice is None else f"{error}. In the pipeline: {advice}"
