from dataclasses import dataclass

from app.writes.group_commit import GroupCommit
from models.claims.claim import Ask
from models.claims.delivery import Claim
from models.claims.poll_stops import Undelivered
from models.claims.polls import PollAnswer
from models.claims.script_syncs import SentScripts
from models.state.runs import Run


@dataclass(frozen=True, slots=True)
class PollVerbs:
    answer: GroupCommit[Ask, PollAnswer]
    answer_stops: GroupCommit[Ask, PollAnswer]
    claim_parked: GroupCommit[Ask, PollAnswer]
    claim_woken: GroupCommit[Ask, PollAnswer]
    recheck: GroupCommit[Ask, PollAnswer]
    give_up: GroupCommit[str, list[Run]]
    confirm: GroupCommit[Claim, Run]
    release_claims: GroupCommit[Claim, bool]
    mark_undelivered: GroupCommit[Undelivered, Undelivered]
    confirm_scripts: GroupCommit[SentScripts, SentScripts]
