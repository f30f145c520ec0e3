"""What every route of the admin API is given: the control plane of its application."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from orchestrator.loops.control import ControlPlane


def _control(request: Request) -> ControlPlane:
    control: ControlPlane = request.app.state.control
    return control


Control = Annotated[ControlPlane, Depends(_control)]
