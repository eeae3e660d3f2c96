"""What tasks about objects have in common: targets, metrics, charts.

This is no task, so ``TASKS`` does not name it. It knows none of the tasks that stand on it.
"""
