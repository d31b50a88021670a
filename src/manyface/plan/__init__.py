"""What a recipe will take, before it runs: bytes, seconds a step, and what to change."""

from manyface.plan.advice import advice
from manyface.plan.elsewhere import fewest_gpus, plan_for_gpus
from manyface.plan.gpus import GPUS, Cluster
from manyface.plan.here import plan_here
from manyface.plan.prediction import Prediction

__all__ = [
    "GPUS",
    "Cluster",
    "Prediction",
    "advice",
    "fewest_gpus",
    "plan_for_gpus",
    "plan_here",
]
