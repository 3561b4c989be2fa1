from models.expiry.duties import duty_due
from models.expiry.steps import Pass, StepResult
from models.runs.holds import any_held, try_take_back

HELD_SECONDS = 10


def apply_holds(current: Pass) -> StepResult:
    """Take back runs that are ready although a hold applies, every 10 s.

    The request that sets a hold does so; one whose process died does not, nor does a replica of the last release.
    Runs that are not held any more are made ready as other missed ones.
    """
    if not any_held(current.conn) or not duty_due(current.conn, "missed holds", HELD_SECONDS):
        return StepResult({})
    held = try_take_back(current.conn, current.most)
    return StepResult({"held": held}, held >= current.most)
