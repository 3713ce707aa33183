"""`citycover import-weights`: a public checkpoint into weights of one of our networks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from citycover_cli.output import print_json, print_table
from citycover_cli.verb import Talk, talking

HELP = """Turn a public checkpoint into weights for `citycover export NAME --weights`.

Names and shapes are mapped; every tensor is reported as used, fitted, skipped or missing. Nothing is
unpickled but tensors. docs/importing-weights.md says what each source is, and how sure its names are.
"""


@talking
def run(
    file: Annotated[Path, typer.Argument(help="Checkpoint: .pth, .safetensors or .npz.")],
    source: Annotated[
        str,
        typer.Option(
            "--from",
            help="torchvision-resnet, efficientnet, segformer, daformer, deit, vit-npz, lovecs, paraformer, "
            "vcnet or band-fusion.",
        ),
    ],
    to: Annotated[str, typer.Option("--to", help="Network of `citycover models list` that will load them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write: .safetensors.")],
    renames: Annotated[
        Path | None, typer.Option("--map", help="TOML file of renames, applied to the file's names first.")
    ] = None,
    *,
    talk: Talk,
) -> None:
    """See HELP."""
    from dataclasses import asdict

    from citycover.errors import ConfigError
    from citycover.files.failures import machine_errors
    from citycover.product.folder import check_output
    from citycover_models.catalogue.registry import find_preset
    from citycover_models.weights.public import import_weights, read_renames

    if out.suffix != ".safetensors":
        raise ConfigError(f"weights are written as .safetensors; got --out {out}; name it so")
    check_output(out, file, renames)
    table = read_renames(renames) if renames else None
    with machine_errors(out):
        report = import_weights(source, file, find_preset(to).build(), out, renames=table)
    if talk.as_json:
        print_json(asdict(report))
        return
    rows = [("file", str(out)), ("used", f"{len(report.used)} as they are")]
    rows += [(name, _lines(getattr(report, name))) for name in ("fitted", "skipped", "missing")]
    print_table(f"imported for {to}", rows)


def _lines(names: tuple[str, ...]) -> str:
    return "\n".join([str(len(names)), *names])
