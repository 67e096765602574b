"""MLflow receives what happens and decides nothing: one run per stage, below one run per pipeline identity.

A stage process never imports mlflow (seconds of CPU) and never waits for it. It leaves a request in the state folder,
and a writer process reads the run's events in the store; what one writer misses, a later one finds.

    stage --events--> store --> writer process --> MLflow       request: <state>/<key>.pending.json, then .done.json
"""

from flows.tracking.live import LiveLog, note
from flows.tracking.record import StageRecord, Tracking, pipeline_id, resolve_tracking

__all__ = ["LiveLog", "StageRecord", "Tracking", "note", "pipeline_id", "resolve_tracking"]
