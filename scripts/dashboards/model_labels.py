"""What every query of *Model* is about: the model and versions that are chosen, at the gateway and at replicas."""

from __future__ import annotations

MODEL = 'cluster="$cluster",model="$model"'
OF = f'{MODEL},version=~"$version"'
AT_GATEWAY = f'role="gateway",{OF}'
AT_REPLICAS = f'role="replica",{OF}'
BY = "sum by (version)"
REQUESTS = f"model_version:modelfleet_requests:rate5m{{{OF}}}"
ERRORS = f"model_version:modelfleet_request_errors:rate5m{{{OF}}}"
BURN_1H = f"model_version:modelfleet_slo_burn:rate1h{{{OF}}}"
QUEUED = f"model_version:modelfleet_queued:sum{{{OF}}}"
OBJECTIVE = f"modelfleet_slo_latency_seconds{{{OF}}}"
