"""Between the pipelines and the stores: the byte budget, the fan-out, and wrappers that each know one thing and nothing of the store beneath."""

from __future__ import annotations

from snapferry.transport.board import ReplicaBoard
from snapferry.transport.budget import BudgetStatistics, ByteBudget
from snapferry.transport.deadline import CALL_SECONDS, with_deadline
from snapferry.transport.fanout import FanOut, TooFewCopies
from snapferry.transport.hedging import HedgeBudget, Lateness
from snapferry.transport.item import Delivery, Manner
from snapferry.transport.limit import Limits, RateLimit
from snapferry.transport.meter import Measured, Meter, Metered
from snapferry.transport.replicas import ReplicaState, Wanted, assign, choose
from snapferry.transport.retry import RetryBudget, RetryPolicy, once, with_retry
from snapferry.transport.share import BudgetShare
from snapferry.transport.spool import Leftovers, Spool, leftovers
from snapferry.transport.wrapper import Wrapper

__all__ = [
    "CALL_SECONDS",
    "BudgetShare",
    "BudgetStatistics",
    "ByteBudget",
    "Delivery",
    "FanOut",
    "HedgeBudget",
    "Lateness",
    "Leftovers",
    "Limits",
    "Manner",
    "Measured",
    "Meter",
    "Metered",
    "RateLimit",
    "ReplicaBoard",
    "ReplicaState",
    "RetryBudget",
    "RetryPolicy",
    "Spool",
    "TooFewCopies",
    "Wanted",
    "Wrapper",
    "assign",
    "choose",
    "leftovers",
    "once",
    "with_deadline",
    "with_retry",
]
