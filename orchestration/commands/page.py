"""Serve the inspection page of a line's champion or of a model file.

python -m orchestration page LINE     on http://127.0.0.1:5050, until Ctrl-C
"""

import os
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from llbnad.config import Runtime
from llbnad.errors import ConfigError, LlbnadError
from llbnad.inference.request import Limits
from llbnad.utils.pixel_limit import limit_pixels
from llbnad.utils.runtime import prepare
from orchestration.inspection.card import champion_facts, file_facts
from orchestration.inspection.champion import Champion, champion_finder, model_finder
from orchestration.registry.store import is_address

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def page(
    model: Annotated[str, typer.Argument(help="Production line, model file (.safetensors) or MLflow address.")],
    host: Annotated[str, typer.Option(help="Address to listen on; others than this machine's own need a proxy.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port.")] = 5050,
    allow_host: Annotated[list[str] | None, typer.Option(help="Name that browsers use for it, with its port.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 = all cores.")] = 0,
) -> None:
    """Serve a page on which people drop images and see score, verdict and heat map."""
    import uvicorn

    from orchestration.inspection.page import inspection_app

    if host not in ("127.0.0.1", "localhost", "::1") and not allow_host:
        raise ConfigError(f"--host {host} is open to other machines: name with --allow-host what they call this one")
    is_line = not is_address(model) and not Path(model).is_file() and not model.endswith(".safetensors")
    limits = Limits.read(os.environ)
    limit_pixels(limits.pixels)
    target = str(prepare(Runtime(device=device, threads=threads)))
    champion = Champion(champion_finder(model) if is_line else model_finder(model), target)

    def card() -> dict[str, str]:
        scorer = champion.current
        facts = file_facts(scorer.name, scorer.file, scorer.predictor.model)
        if not is_line:
            return facts
        try:
            return {**facts, **champion_facts(model)}
        except LlbnadError as error:
            return {**facts, "Registry": str(error)}

    hosts = [f"{name}:{port}" for name in LOOPBACK] + [name.lower() for name in allow_host or ()]
    champion.follow(threading.Event())
    print(f"{champion.current.name} on http://{hosts[0]}; Ctrl-C ends it", file=sys.stderr, flush=True)
    app = inspection_app(champion, card, hosts, limits)
    uvicorn.run(app, host=host, port=port, log_level="warning", access_log=False)
