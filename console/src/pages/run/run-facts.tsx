import { Link } from "@tanstack/react-router";
import type { ReactNode } from "react";
import type { Run } from "../../api/client";
import { Fact, Facts, Labels, Section } from "../../design/parts";
import { Time } from "../../design/time";
import { Value } from "../../design/value";

export function RunFacts({ run }: { run: Run }) {
  const facts: [string, ReactNode][] = [
    ["Type", run.type],
    ["Agent", run.agent_name],
    ["Session", <SessionLink key="s" id={run.session_id} />],
    ["Parent session", run.parent_session_id && <SessionLink key="p" id={run.parent_session_id} />],
    ["Replay of", run.replay_of && <RunLink key="o" id={run.replay_of} />],
    ["Runner", run.runner_id && <RunnerLink key="r" id={run.runner_id} />],
    ["Attempt", attemptsOf(run)],
    ["Priority", run.priority],
    ["Execution mode", run.execution_mode],
    ["Project directory", run.project_dir],
    ["Labels", Object.keys(run.labels).length > 0 && <Labels labels={run.labels} />],
    ["Not before", run.not_before && <Time at={run.not_before} />],
    ["Fails without a runner at", run.timeout_at && <Time at={run.timeout_at} />],
  ];
  return (
    <Section title="Properties">
      <Facts>
        {facts.map(([name, value]) => (
          <Fact key={name} name={name}>
            {value || value === 0 ? value : "–"}
          </Fact>
        ))}
      </Facts>
      <Value name="Demands" value={run.demands} />
    </Section>
  );
}

interface Linked {
  id: string;
  /** Text instead of the id. */
  label?: string;
}

/** Return the number of starts, and how many are allowed, unless a retry policy has allowed more. */
export function attemptsOf({ attempt, max_attempts }: Run): string {
  return attempt > max_attempts ? `${attempt}` : `${attempt} of ${max_attempts}`;
}

export function RunLink({ id, label }: Linked) {
  return (
    <Link to="/runs/$runId" params={{ runId: id }} aria-label={label && `${label} ${id}`}>
      {label ?? <code>{id}</code>}
    </Link>
  );
}

export function SessionLink({ id, label }: Linked) {
  return (
    <Link to="/sessions/$sessionId" params={{ sessionId: id }} aria-label={label && `${label} ${id}`}>
      {label ?? id}
    </Link>
  );
}

export function RunnerLink({ id, label }: Linked) {
  return (
    <Link to="/runners/$runnerId" params={{ runnerId: id }} aria-label={label && `${label} ${id}`}>
      {label ?? id}
    </Link>
  );
}
