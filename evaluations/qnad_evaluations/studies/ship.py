"""Put a hardened classifier into the package, with its card.

    python -m qnad_evaluations.studies.ship runs/lenet5-mnist --name lenet5-mnist

Takes a folder written by `qnad harden` and the card beside it; ``--figures`` adds the JSON of
``tuned_crosstalk.py``.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Annotated

import typer

import qnad_art.pretrained
from qnad_art import QuantumExecutedClassifier
from qnad_art.files.atomic import read_json, write_json


def main(
    hardened: Annotated[Path, typer.Argument(help="Folder written by `qnad harden`.")],
    name: Annotated[str, typer.Option(help="Of the pretrained network.")],
    figures: Annotated[Path | None, typer.Option(help="JSON of tuned_crosstalk.py.")] = None,
) -> None:
    """Copy the folder and write the card with the hashes of its files."""
    QuantumExecutedClassifier.load(hardened)  # damaged files stop here
    target = Path(qnad_art.pretrained.__file__).parent / name
    shutil.copytree(hardened, target, dirs_exist_ok=True)
    card = read_json(hardened.with_name(f"{hardened.name}.card.json"))
    card["weights"] = Path(card["weights"]).name
    if figures is not None:
        card["evaluation"] = read_json(figures)["figures"]
    files = [path for path in target.iterdir() if path.name != "card.json"]
    card["sha256"] = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    write_json(target / "card.json", card)
    size = sum(path.stat().st_size for path in target.iterdir())
    typer.echo(f"{target.name}: {size:,} bytes")


if __name__ == "__main__":
    typer.run(main)
