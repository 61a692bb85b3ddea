"""The names of runs: what tells runs apart comes first, because MLflow's list cuts a name after some twenty letters."""

SHOWN_DIGITS, SHOWN_DATASET = 8, 16  # letters of the key and of the data set's name


def run_name(scenario: str, policy: str, dataset: str, key: str, version: str | None = None, verdicts: int = 0) -> str:
    """Return the name of a scenario's run, such as `a20 adaptive v3 of elpv_mono 1f3a9c2b`.

    Args:
        scenario: name in params.yaml; where it begins with the data set's name, only the rest comes first.
        policy: name of the policy that selects.
        dataset: name of the data set.
        key: key of the run.
        version: number of the registered version that its detector became.
        verdicts: number of people's verdicts.
    """
    first = scenario.removeprefix(dataset).strip("_-.") or scenario
    short = dataset if len(dataset) <= SHOWN_DATASET else f"{dataset[: SHOWN_DATASET - 1]}…"
    judged = [f"{verdicts} verdicts"] if verdicts else []
    of_dataset = [] if scenario == dataset else [f"of {short}"]
    return " ".join([first, policy, *judged, *([f"v{version}"] if version else []), *of_dataset, key[:SHOWN_DIGITS]])
