"""Prices of what is decided: a service read, completed and refused; its figures; a decision's metrics and limits."""

from planner.price.candidates import POLICIES, TIERS, setting_of
from planner.price.constraints import by_itself
from planner.price.evaluate import Evaluation, evaluate, joined
from planner.price.figures import Figures
from planner.price.price_service import PricedService, price_service, priced_setting

__all__ = [
    "POLICIES",
    "TIERS",
    "Evaluation",
    "Figures",
    "PricedService",
    "by_itself",
    "evaluate",
    "joined",
    "price_service",
    "priced_setting",
    "setting_of",
]
