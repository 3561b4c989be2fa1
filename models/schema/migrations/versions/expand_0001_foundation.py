"""The foundation: runs, sessions, runners, history and the signs of life of our own processes."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
CREATE SEQUENCE runner_registration;

CREATE TABLE child_results (
    child_run_id TEXT NOT NULL,
    child_session_id TEXT NOT NULL,
    parent_session_id TEXT NOT NULL,
    outcome TEXT NOT NULL,
    body JSON NOT NULL,
    delivered_in TEXT,
    created_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_child_results PRIMARY KEY (child_run_id)
);

CREATE INDEX ix_child_results_waiting ON child_results (parent_session_id) WHERE delivered_in IS NULL;

CREATE TABLE deleted_sessions (
    request_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    below_event_id BIGINT NOT NULL,
    events_count BIGINT NOT NULL,
    runs_count BIGINT NOT NULL,
    deleted_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_deleted_sessions PRIMARY KEY (request_id)
);

CREATE TABLE demand_profiles (
    profile_id BIGSERIAL NOT NULL,
    hash TEXT NOT NULL,
    hostname TEXT,
    project_dir TEXT,
    executor_profile TEXT,
    executor_type TEXT,
    tags TEXT[] NOT NULL,
    last_used_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_demand_profiles PRIMARY KEY (profile_id),
    CONSTRAINT uq_demand_profiles_hash UNIQUE (hash)
);

CREATE TABLE duties (
    duty TEXT NOT NULL,
    last_run timestamptz,
    CONSTRAINT pk_duties PRIMARY KEY (duty)
);

CREATE TABLE events (
    id BIGSERIAL NOT NULL,
    feed_pos BIGINT,
    event_uid TEXT NOT NULL,
    kind TEXT NOT NULL,
    event_type TEXT,
    session_id TEXT NOT NULL,
    run_id TEXT,
    owner TEXT,
    frame JSON NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_events PRIMARY KEY (id),
    CONSTRAINT uq_events_feed_pos UNIQUE (feed_pos),
    CONSTRAINT uq_events_event_uid UNIQUE (event_uid)
);

CREATE INDEX ix_events_result ON events (session_id, id) WHERE event_type = 'result';

CREATE INDEX ix_events_session ON events (session_id, feed_pos, id);

CREATE INDEX ix_events_unnumbered ON events (id) WHERE feed_pos IS NULL;

CREATE TABLE feed_head (
    only_row BOOLEAN DEFAULT 'true' NOT NULL,
    last_pos BIGINT DEFAULT '0' NOT NULL,
    floor BIGINT DEFAULT '0' NOT NULL,
    numbered_below BIGINT DEFAULT '0' NOT NULL,
    epoch TEXT NOT NULL,
    CONSTRAINT pk_feed_head PRIMARY KEY (only_row),
    CONSTRAINT ck_feed_head_only_row CHECK (only_row)
);

CREATE TABLE gaps (
    gap_id BIGSERIAL NOT NULL,
    kind TEXT NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    CONSTRAINT pk_gaps PRIMARY KEY (gap_id),
    CONSTRAINT ck_gaps_kind CHECK (kind IN ('expiry', 'web', 'runners'))
);

CREATE INDEX ix_gaps_ended_at ON gaps (ended_at);

CREATE TABLE idempotency_keys (
    caller TEXT DEFAULT '' NOT NULL,
    key TEXT NOT NULL,
    body_hash TEXT NOT NULL,
    run_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_idempotency_keys PRIMARY KEY (caller, key)
);

CREATE INDEX ix_idempotency_keys_age ON idempotency_keys (created_at);

CREATE TABLE instances (
    instance TEXT NOT NULL,
    seen_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_instances PRIMARY KEY (instance)
);

CREATE TABLE runners (
    runner_id TEXT NOT NULL,
    registration BIGINT DEFAULT nextval('runner_registration') NOT NULL,
    instance_id TEXT,
    owner TEXT,
    hostname TEXT NOT NULL,
    project_dir TEXT NOT NULL,
    executor_profile TEXT NOT NULL,
    executor_type TEXT,
    executor JSON,
    tags TEXT[] NOT NULL,
    require_matching_tags BOOLEAN DEFAULT 'false' NOT NULL,
    agents JSON,
    capacity INTEGER,
    told_interval INTEGER NOT NULL,
    sends_tokens BOOLEAN DEFAULT 'false' NOT NULL,
    sends_holding BOOLEAN DEFAULT 'false' NOT NULL,
    registration_uid TEXT DEFAULT '' NOT NULL,
    registered_at timestamptz DEFAULT now() NOT NULL,
    last_seen timestamptz DEFAULT now() NOT NULL,
    lost_at timestamptz,
    left_at timestamptz,
    leave_requested_at timestamptz,
    leave_told_at timestamptz,
    counted_beat_at timestamptz,
    CONSTRAINT pk_runners PRIMARY KEY (runner_id)
)
 WITH (fillfactor = 50);

CREATE TABLE sessions (
    session_id TEXT NOT NULL,
    incarnation TEXT NOT NULL,
    owner TEXT,
    depth INTEGER DEFAULT '0' NOT NULL,
    status TEXT NOT NULL,
    last_outcome TEXT,
    next_run INTEGER DEFAULT '1' NOT NULL,
    project_dir TEXT,
    agent_name TEXT,
    parent_session_id TEXT,
    executor_session_id TEXT,
    executor_profile TEXT,
    hostname TEXT,
    runner_id TEXT,
    registration BIGINT,
    bound_token TEXT,
    scope JSON,
    first_event_id BIGINT DEFAULT '0' NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    last_resumed_at timestamptz,
    last_sign_at timestamptz,
    CONSTRAINT pk_sessions PRIMARY KEY (session_id),
    CONSTRAINT ck_sessions_status CHECK (
        status IN ('pending', 'running', 'idle', 'stopping', 'finished', 'failed', 'stopped')
    ),
    CONSTRAINT ck_sessions_last_outcome CHECK (last_outcome IN ('idle', 'finished', 'failed', 'stopped'))
);

CREATE INDEX ix_sessions_live ON sessions (runner_id) WHERE runner_id IS NOT NULL;

CREATE INDEX ix_sessions_newest ON sessions (created_at DESC, session_id DESC);

CREATE INDEX ix_sessions_owner ON sessions (owner, created_at DESC, session_id DESC);

CREATE INDEX ix_sessions_parent ON sessions (parent_session_id) WHERE parent_session_id IS NOT NULL;

CREATE TABLE stop_commands (
    stop_id BIGSERIAL NOT NULL,
    runner_id TEXT NOT NULL,
    registration BIGINT NOT NULL,
    session_id TEXT NOT NULL,
    run_id TEXT,
    created_at timestamptz DEFAULT now() NOT NULL,
    sent_at timestamptz,
    deadline_at timestamptz NOT NULL,
    CONSTRAINT pk_stop_commands PRIMARY KEY (stop_id),
    CONSTRAINT uq_stop_commands_session_id UNIQUE (session_id)
);

CREATE INDEX ix_stop_commands_deadline ON stop_commands (deadline_at);

CREATE INDEX ix_stop_commands_runner ON stop_commands (runner_id);

CREATE UNLOGGED TABLE waiting_polls (
    poll_id TEXT NOT NULL,
    runner_id TEXT NOT NULL,
    registration BIGINT NOT NULL,
    instance TEXT NOT NULL,
    wanted SMALLINT NOT NULL,
    seen_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_waiting_polls PRIMARY KEY (poll_id)
);

CREATE INDEX ix_waiting_polls_runner ON waiting_polls (runner_id);

CREATE TABLE runs (
    run_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    session_seq INTEGER NOT NULL,
    owner TEXT,
    type TEXT NOT NULL,
    agent_name TEXT,
    parameters JSON NOT NULL,
    project_dir TEXT,
    parent_session_id TEXT,
    execution_mode TEXT NOT NULL,
    scope JSON,
    demands JSON NOT NULL,
    labels JSONB,
    profile_id BIGINT NOT NULL,
    status TEXT DEFAULT 'pending' NOT NULL,
    ready BOOLEAN DEFAULT 'false' NOT NULL,
    priority SMALLINT DEFAULT '0' NOT NULL,
    attempt INTEGER DEFAULT '0' NOT NULL,
    max_attempts INTEGER DEFAULT '1' NOT NULL,
    run_timeout_seconds INTEGER,
    no_match_timeout_seconds INTEGER NOT NULL,
    runner_id TEXT,
    registration BIGINT,
    claim_token TEXT,
    claim_poll_id TEXT,
    not_for BIGINT[],
    fruitless_claims SMALLINT DEFAULT '0' NOT NULL,
    unheld_beats SMALLINT DEFAULT '0' NOT NULL,
    stop_cause TEXT,
    ended_by_us BOOLEAN DEFAULT 'false' NOT NULL,
    last_ended_token TEXT,
    last_ended_runner TEXT,
    last_ended_outcome TEXT,
    error TEXT,
    created_at timestamptz DEFAULT now() NOT NULL,
    not_before timestamptz,
    claimed_at timestamptz,
    delivered_at timestamptz,
    started_at timestamptz,
    completed_at timestamptz,
    match_deadline_at timestamptz,
    claim_deadline_at timestamptz,
    run_deadline_at timestamptz,
    gaps_counted_at timestamptz,
    CONSTRAINT pk_runs PRIMARY KEY (run_id),
    CONSTRAINT ck_runs_status CHECK (
        status IN ('pending', 'claimed', 'running', 'stopping', 'completed', 'failed', 'stopped')
    ),
    CONSTRAINT ck_runs_type CHECK (type IN ('start_session', 'resume_session')),
    CONSTRAINT ck_runs_execution_mode CHECK (execution_mode IN ('sync', 'async_poll', 'async_callback')),
    CONSTRAINT ck_runs_stop_cause CHECK (stop_cause IN ('stop', 'timeout')),
    CONSTRAINT ck_runs_ended CHECK ((status IN ('completed', 'failed', 'stopped')) = (completed_at IS NOT NULL)),
    CONSTRAINT ck_runs_owned CHECK (status NOT IN ('claimed', 'running') OR claim_token IS NOT NULL),
    CONSTRAINT ck_runs_unowned CHECK (status <> 'pending' OR claim_token IS NULL),
    CONSTRAINT ck_runs_ready CHECK (status = 'pending' OR NOT ready),
    CONSTRAINT fk_runs_session_id FOREIGN KEY(session_id) REFERENCES sessions (session_id)
)
 WITH (fillfactor = 80);

CREATE INDEX ix_runs_claim ON runs (profile_id, priority DESC, run_id) WHERE status = 'pending' AND ready;

CREATE INDEX ix_runs_claim_deadline ON runs (claim_deadline_at) WHERE status = 'claimed';

CREATE INDEX ix_runs_due ON runs (not_before) WHERE status = 'pending' AND NOT ready;

CREATE INDEX ix_runs_in_hand ON runs (runner_id) WHERE status IN ('claimed', 'running', 'stopping');

CREATE INDEX ix_runs_labels ON runs USING gin (labels) WHERE labels IS NOT NULL;

CREATE INDEX ix_runs_match_deadline ON runs (match_deadline_at)
    WHERE status = 'pending' AND ready AND match_deadline_at IS NOT NULL;

CREATE INDEX ix_runs_newest ON runs (created_at DESC, run_id DESC);

CREATE UNIQUE INDEX ix_runs_one_active
    ON runs (session_id) WHERE status IN ('claimed', 'running', 'stopping');

CREATE INDEX ix_runs_owner ON runs (owner, created_at DESC, run_id DESC);

CREATE INDEX ix_runs_poll ON runs (claim_poll_id) WHERE status = 'claimed';

CREATE INDEX ix_runs_run_deadline ON runs (run_deadline_at) WHERE status IN ('running', 'stopping');

CREATE UNIQUE INDEX ix_runs_session ON runs (session_id, session_seq);

CREATE INDEX ix_runs_unheld ON runs (run_id) WHERE status = 'running' AND unheld_beats >= 2;

CREATE INDEX ix_runs_unfinished
    ON runs (session_id, session_seq) WHERE status IN ('pending', 'claimed', 'running', 'stopping');
"""

# The lock is taken in one statement and the rows are read in the next: in a VOLATILE function each statement has its
# own snapshot, so what the former holder numbered is seen. Called in autocommit, no client pause can hold the lock.
SEQUENCE_FEED = """
CREATE FUNCTION sequence_feed(batch integer DEFAULT 1000) RETURNS integer
LANGUAGE plpgsql VOLATILE SET lock_timeout = '2s' AS $$
DECLARE
    head bigint;
    numbered integer;
BEGIN
    SELECT last_pos INTO STRICT head FROM feed_head FOR UPDATE;
    WITH unnumbered AS MATERIALIZED (
        SELECT id FROM events WHERE feed_pos IS NULL ORDER BY id LIMIT batch FOR UPDATE
    ), placed AS (
        SELECT id, head + row_number() OVER (ORDER BY id) AS pos FROM unnumbered
    ), done AS (
        UPDATE events SET feed_pos = placed.pos FROM placed WHERE events.id = placed.id RETURNING events.id
    )
    SELECT count(*) INTO numbered FROM done;
    IF numbered > 0 THEN
        UPDATE feed_head SET last_pos = last_pos + numbered;
    END IF;
    RETURN numbered;
END $$;
"""

# Silence of runners says nothing before the end of the last gap of our own; nor at all while all web processes are
# silent, for as long as the first of them has not noted that gap (models.gaps).
SILENCE_COUNTS_FROM = """
CREATE FUNCTION silence_counts_from() RETURNS timestamptz
LANGUAGE sql STABLE AS $$
    SELECT greatest(
        (SELECT max(ended_at) FROM gaps),
        (SELECT clock_timestamp() FROM duties
         WHERE duty = 'web clock' AND last_run < clock_timestamp() - interval '15 seconds'))
$$;
"""

FIRST_HEAD = """
INSERT INTO feed_head (epoch) VALUES (substr(replace(gen_random_uuid()::text, '-', ''), 1, 12));
"""

NAMES = [
    "waiting_polls",
    "child_results",
    "stop_commands",
    "idempotency_keys",
    "runs",
    "sessions",
    "demand_profiles",
    "runners",
    "events",
    "feed_head",
    "instances",
    "duties",
    "deleted_sessions",
    "gaps",
]


def upgrade() -> None:
    op.execute(TABLES)
    op.execute(SEQUENCE_FEED)
    op.execute(SILENCE_COUNTS_FROM)
    op.execute(FIRST_HEAD)


def downgrade() -> None:
    op.execute("DROP FUNCTION sequence_feed(integer)")
    op.execute("DROP FUNCTION silence_counts_from()")
    for name in NAMES:
        op.drop_table(name)
    op.execute("DROP SEQUENCE runner_registration")
