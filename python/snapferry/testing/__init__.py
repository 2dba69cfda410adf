"""For authors of destinations and sources, and of programs around this one: conformance suites, and doubles named by their fault.

Nothing is imported here; take ``snapferry.testing.conformance``, ``source_conformance``, ``faults`` or ``sources``.
"""

from __future__ import annotations
