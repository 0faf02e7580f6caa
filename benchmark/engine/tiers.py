"""How much an evaluation is to be sure of: a trend, a comparison, or an FID that may be ranked."""

from collections.abc import Mapping
from typing import Any

TIERS: dict[str, dict[str, Any]] = {
    "probe": {"limit": 64, "prompts": "full", "num_inference_steps": 15},
    "quick": {"limit": 1_000, "prompts": "full", "num_inference_steps": 20},
    "full": {"limit": 10_000, "prompts": "full", "num_inference_steps": 50},  # 4 D of Inception are 8,192
}


def expanded(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of `generate` with what their tier stands for in its place."""
    named = {name: value for name, value in options.items() if name != "tier"}
    return {**named, **TIERS.get(options.get("tier", ""), {})}
