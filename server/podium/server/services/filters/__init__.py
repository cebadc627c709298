"""The filter of ListJobs, a subset of google.aip.dev/160: text to tree by grammar.lark, tree to a test of a job.

docs/listing.md is its reference.
"""

from podium.server.services.filters._compile import OPERATORS, Filter, compile_filter
from podium.server.services.filters._fields import FIELDS, Kind, table

__all__ = ["FIELDS", "OPERATORS", "Filter", "Kind", "compile_filter", "table"]
