"""Which version idles most, and what its author can do about it, in a sentence. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.core.cost.amounts import Amounts
from orchestrator.core.entities import DesiredVersion, VersionKey

# Less than this is no advice: everything idles somewhat, or it was seen too shortly.
LEAST_SHARE = 0.5
LEAST_IDLE_S = 60.0


def advice(taken: Mapping[VersionKey, Amounts], desired: Mapping[VersionKey, DesiredVersion], currency: str) -> str:
    """ "" where nothing that still runs is worth a word."""
    idle = {key: each for key, each in taken.items() if key in desired and _is_worth_a_word(each)}
    if not idle:
        return ""
    key, worst = max(idle.items(), key=lambda item: (item[1].idle_cost, item[1].idle_s + item[1].standby_s, item[0]))
    return f"{key} idles most: {_said(worst, currency)}; {_remedy(desired[key], worst)}"


def _is_worth_a_word(each: Amounts) -> bool:
    share = each.idle_share
    is_idle = share is not None and share >= LEAST_SHARE and each.idle_s >= LEAST_IDLE_S
    return is_idle or each.standby_s > max(LEAST_IDLE_S, each.replica_s)


def _said(each: Amounts, currency: str) -> str:
    cost = f", for {each.idle_cost:.2f}{currency and f' {currency}'}" if each.idle_cost >= 0.005 else ""
    if each.standby_s > each.replica_s:
        return f"its replicas were in standby for {each.standby_s / 3600:.1f} hours{cost}"
    share = each.idle_share or 0.0
    return f"in {share:.0%} of {each.judged_s / 3600:.1f} replica hours no request was inside{cost}"


def _remedy(version: DesiredVersion, each: Amounts) -> str:
    scaling = version.scaling
    if each.standby_s > each.replica_s and scaling.standby:
        return f"lower scaling.standby from {scaling.standby}, or set scaling.gone_after so that standby ends too"
    if scaling.is_fixed and version.replicas > 1:
        return f"let the load choose its count: `scaling: {{min: 1, max: {version.replicas}}}` with an `slo`"
    if scaling.minimum > 1:
        return f"lower scaling.min from {scaling.minimum}"
    if scaling.minimum == 1:
        most = max(1, scaling.maximum)
        return f"let it sleep while nobody asks: `scaling: {{min: 0, max: {most}, idle_after: 10m}}`"
    return f"lower scaling.idle_after from {scaling.idle_after_s:g}s, so that it sleeps sooner"
