"""Functions that jobs call: how they are declared, found by name, given their payload, and how their failures count."""

from dispatch.functions.context import RunContext, current
from dispatch.functions.registry import REGISTRY, Function, Options, Registry, cron, function

__all__ = ["REGISTRY", "Function", "Options", "Registry", "RunContext", "cron", "current", "function"]
