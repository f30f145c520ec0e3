"""The errors of the control plane, split by who must act. The exit code and HTTP status live here, in one place.

Messages have the form `<what>: <got>; <rule>; <what to do>`. Anything else that is raised is our bug.
"""

from __future__ import annotations


class FleetError(Exception):
    """Base. `exit_code` is what the command line ends with, `status` what the admin API answers."""

    exit_code = 1
    status = 500
    code = "INTERNAL"


class UserError(FleetError):
    """The caller's input is wrong; the message says where and what to do."""

    exit_code = 2
    status = 422
    code = "INVALID"


class NotFoundError(UserError):
    status = 404
    code = "NOT_FOUND"


class ConflictError(UserError):
    """What was asked contradicts what runs (another cluster's state, a port in use, a second control plane)."""

    status = 409
    code = "CONFLICT"


class UnavailableError(FleetError):
    """The environment is at fault: engine away, disk full, registry unreachable. It may go away by itself."""

    status = 503
    code = "UNAVAILABLE"
