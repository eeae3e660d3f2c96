"""Several models that answer as one: how they are joined, what is fitted for that, and how a run's are loaded."""

from snellen.ensemble.loading import load_run
from snellen.ensemble.together import Ensemble, ensemble

__all__ = ["Ensemble", "ensemble", "load_run"]
