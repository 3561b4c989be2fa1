import type { ReactNode } from "react";
import type { Run } from "../../api/client";
import { Section } from "../../design/parts";
import { Table } from "../../design/table";
import { Time } from "../../design/time";
import { formatDuration, secondsBetween } from "../../format/times";
import styles from "./diff.module.css";
import { attemptsOf, RunnerLink, SessionLink } from "./run-facts";

type Runs = readonly [Run, Run];

const WAYS: readonly [string, (run: Run) => number | null][] = [
  ["Waited to be claimed", (run) => between(run.created_at, run.claimed_at)],
  ["From claim to start", (run) => between(run.claimed_at, run.started_at)],
  ["Ran", (run) => between(run.started_at, run.completed_at)],
  ["In all", (run) => between(run.created_at, run.completed_at)],
];

const PROPERTIES: readonly [string, (run: Run) => string | number | null, ((run: Run) => ReactNode)?][] = [
  ["Status", (run) => run.status],
  ["Agent", (run) => run.agent_name],
  ["Type", (run) => run.type],
  ["Session", (run) => run.session_id, (run) => <SessionLink id={run.session_id} />],
  ["Runner", (run) => run.runner_id, (run) => run.runner_id && <RunnerLink id={run.runner_id} />],
  ["Attempts", attemptsOf],
  ["Priority", (run) => run.priority],
  ["Project directory", (run) => run.project_dir],
  ["Execution mode", (run) => run.execution_mode],
  ["Not before", (run) => run.not_before, (run) => run.not_before && <Time at={run.not_before} />],
];

export function TimesAndProperties({ runs }: { runs: Runs }) {
  const [first, second] = runs;
  return (
    <>
      <Section title="Times">
        <Table
          label="Times of both runs"
          heads={["Time", first.run_id, second.run_id, "Difference"]}
          className={styles.facts}
        >
          <tr>
            <th scope="row">Created</th>
            {runs.map((run) => (
              <td key={run.run_id}>
                <Time at={run.created_at} />
              </td>
            ))}
            <td>{later(secondsBetween(first.created_at, second.created_at))}</td>
          </tr>
          {WAYS.map(([name, of]) => {
            const [before, now] = [of(first), of(second)];
            return (
              <tr key={name}>
                <th scope="row">{name}</th>
                <td>{before === null ? "–" : formatDuration(before)}</td>
                <td>{now === null ? "–" : formatDuration(now)}</td>
                <td>{before === null || now === null ? "–" : longer(now - before)}</td>
              </tr>
            );
          })}
        </Table>
      </Section>
      <Section title="Properties">
        <Table
          label="Properties of both runs"
          heads={["Property", first.run_id, second.run_id]}
          className={styles.facts}
        >
          {PROPERTIES.filter(([, of]) => runs.some((run) => of(run) !== null)).map(([name, of, show = of]) => (
            <tr key={name} data-differs={of(first) !== of(second) || undefined}>
              <th scope="row">{name}</th>
              {runs.map((run) => (
                <td key={run.run_id}>{show(run) ?? "–"}</td>
              ))}
            </tr>
          ))}
        </Table>
      </Section>
    </>
  );
}

function between(start: string | null, end: string | null): number | null {
  return start === null || end === null ? null : secondsBetween(start, end);
}

function later(seconds: number): string {
  return `${formatDuration(Math.abs(seconds))} ${seconds < 0 ? "earlier" : "later"}`;
}

function longer(seconds: number): string {
  return Math.abs(seconds) < 0.0005
    ? "the same"
    : `${formatDuration(Math.abs(seconds))} ${seconds < 0 ? "shorter" : "longer"}`;
}
