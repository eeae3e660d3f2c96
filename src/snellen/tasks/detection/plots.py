"""The pictures of how boxes are found."""

from __future__ import annotations

from snellen.tasks.object_charts import charts

__all__ = ["charts"]
