"""The settings of Celery's workers, which dagster-celery imports by this name. `make worker` makes them importable."""

import os

broker_url = os.environ["LLBNAD_BROKER"]
result_backend = os.environ["LLBNAD_RESULTS"]
broker_connection_retry_on_startup = True
# A run takes minutes to hours, so a worker takes one only when a slot is free; others would wait beside idle workers.
worker_prefetch_multiplier = 1
worker_disable_prefetch = True  # Redis only; with another broker a worker may have one run more in hand
worker_max_tasks_per_child = 1  # a process per run: it loads today's code, and its slice is free when it ends
# Left off: task_acks_late. Redis would hand a long run out a second time, and it would not help when a worker dies.
