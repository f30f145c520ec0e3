"""`modelfleet validate`: everything that is wrong with a manifest, without a control plane."""

from __future__ import annotations

import os

from orchestrator.cli import manifests, words
from orchestrator.cli.errors import UsageError
from orchestrator.cli.manifests import ManifestArgument
from orchestrator.cli.verb import Session, verb


@verb("modelfleet validate", "modelfleet validate configs/models.yaml", "modelfleet validate -o json")
def validate(session: Session, manifest: ManifestArgument = None) -> None:
    """Check a manifest, here and now; needs no control plane."""
    from orchestrator.manifest import check_world, load_file

    path = manifests.chosen(manifest)
    loaded = load_file(path)
    faults = check_world(loaded, environ=os.environ)
    if faults:
        raise UsageError(f"{words.count(len(faults), 'error')} in {path}", diagnostics=faults)
    versions = sum(len(model.versions) for model in loaded.models.values())
    warnings = loaded.pricing.warnings()
    if session.json:
        counts = {"models": len(loaded.models), "versions": versions}
        session.out.json({"file": str(path), "valid": True, **counts, "warnings": list(warnings)})
    else:
        for warning in warnings:
            session.say(("  ! ", "yellow"), warning)
        session.say(
            (f"{path} is valid", "green"),
            f": {words.count(len(loaded.models), 'model')}, {words.count(versions, 'version')}",
        )
