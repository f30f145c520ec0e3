"""`models.yaml` to a `Manifest`; every message names file, line, column, field and rule.

This package owns the manifest's language, and nothing of what is done with it. `model.py` has the fields,
`resolve.py` the rules that span them, `load.py` the way through. docs/MANIFEST.md is the reference for users.
"""

from orchestrator.manifest.diagnostics import Diagnostic, ManifestError
from orchestrator.manifest.edit import section, with_all_traffic, with_model, without_model
from orchestrator.manifest.gateway import AccessLogConfig, GatewayConfig, LimitsConfig, TlsConfig
from orchestrator.manifest.load import load, load_file, read_text
from orchestrator.manifest.model import (
    ImagesConfig,
    Manifest,
    ModelConfig,
    ResourcesConfig,
    VersionConfig,
)
from orchestrator.manifest.observability import ObservabilityConfig
from orchestrator.manifest.pricing import PricingConfig
from orchestrator.manifest.routing import QueueConfig, RateLimitConfig, RetryConfig, ShadowConfig
from orchestrator.manifest.scaling import AutoscalerConfig, ClusterConfig, ScalingConfig, ScheduleConfig
from orchestrator.manifest.schema import json_schema
from orchestrator.manifest.secrets import SecretRef
from orchestrator.manifest.serving import BatchingConfig, CacheConfig, SloConfig
from orchestrator.manifest.sources import CredentialConfig, SourcesConfig
from orchestrator.manifest.world import check_gateway, check_world

__all__ = [
    "AccessLogConfig",
    "AutoscalerConfig",
    "BatchingConfig",
    "CacheConfig",
    "ClusterConfig",
    "CredentialConfig",
    "Diagnostic",
    "GatewayConfig",
    "ImagesConfig",
    "LimitsConfig",
    "Manifest",
    "ManifestError",
    "ModelConfig",
    "ObservabilityConfig",
    "PricingConfig",
    "QueueConfig",
    "RateLimitConfig",
    "ResourcesConfig",
    "RetryConfig",
    "ScalingConfig",
    "ScheduleConfig",
    "SecretRef",
    "ShadowConfig",
    "SloConfig",
    "SourcesConfig",
    "TlsConfig",
    "VersionConfig",
    "check_gateway",
    "check_world",
    "json_schema",
    "load",
    "load_file",
    "read_text",
    "section",
    "with_all_traffic",
    "with_model",
    "without_model",
]
