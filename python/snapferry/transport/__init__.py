"""Between the pipelines and the stores: the byte budget, the fan-out, and wrappers that each know one thing and nothing of the store beneath."""

from __future__ import annotations

from snapferry.transport.budget import BudgetStatistics, ByteBudget
from snapferry.transport.fanout import Delivery, FanOut, TooFewCopies
from snapferry.transport.limit import Limits, RateLimit
from snapferry.transport.meter import Meter, Metered, ReplicaBoard
from snapferry.transport.replicas import ReplicaState, choose
from snapferry.transport.retry import RetryBudget, RetryPolicy, with_retry
from snapferry.transport.share import BudgetShare
from snapferry.transport.wrapper import Wrapper

__all__ = [
    "BudgetShare",
    "BudgetStatistics",
    "ByteBudget",
    "Delivery",
    "FanOut",
    "Limits",
    "Meter",
    "Metered",
    "RateLimit",
    "ReplicaBoard",
    "ReplicaState",
    "RetryBudget",
    "RetryPolicy",
    "TooFewCopies",
    "Wrapper",
    "choose",
    "with_retry",
]
