import { useQuery } from "@tanstack/react-query";
import { ApiError, type Runner } from "../../api/client";
import { runnerList } from "../../api/queries";
import { Empty, Loading, Notice, pageClass, Status } from "../../design/parts";
import { Table } from "../../design/table";
import { formatDuration } from "../../format/times";
import { runnerCommand } from "../commands";
import { RunnerLink } from "../run/run-facts";
import styles from "../sessions/sessions.module.css";
import { Draining } from "./drain";
import { RunnersNotShown } from "./not-shown";

export function RunnersPage() {
  const runners = useQuery(runnerList);
  return (
    <div className={pageClass}>
      <h1>Runners</h1>
      {runners.isPending && <Loading />}
      {runners.isError && (isForbidden(runners.error) ? <RunnersNotShown /> : <Notice error={runners.error} />)}
      {runners.data?.length === 0 && (
        <Empty title="No runner is registered" command={runnerCommand()}>
          Runs wait until one comes. Start one on any machine that reaches this address.
        </Empty>
      )}
      {runners.data !== undefined && runners.data.length > 0 && <RunnerTable runners={runners.data} />}
    </div>
  );
}

export function isForbidden(error: unknown): boolean {
  return error instanceof ApiError && error.status === 403;
}

function RunnerTable({ runners }: { runners: Runner[] }) {
  return (
    <Table
      label="Runners"
      heads={["Status", "Runner", "Host", "Profile", "Tags", "In hand", "Directory", "Last heartbeat"]}
    >
      {runners.map((runner) => (
        <tr key={runner.runner_id} data-runner={runner.runner_id}>
          <td>
            <Status of={runner.status} />
            {runner.lost && " lost"} <Draining runner={runner} />
          </td>
          <td>
            <RunnerLink id={runner.runner_id} />
          </td>
          <td>{runner.hostname}</td>
          <td>{runner.executor_profile}</td>
          <td>
            {runner.tags.join(", ")}
            {runner.require_matching_tags && " (only tagged runs)"}
          </td>
          <td>
            <Slots runner={runner} />
          </td>
          <td>{runner.project_dir}</td>
          <td>{formatDuration(runner.seconds_since_heartbeat)} ago</td>
        </tr>
      ))}
    </Table>
  );
}

const MOST_DRAWN = 24;

/** Show how many runs a runner has in hand, of how many it can take. */
export function Slots({ runner }: { runner: Runner }) {
  const { capacity, runs_in_hand: used } = runner;
  const text = capacity === null ? `${used} (no bound)` : `${used} of ${capacity}`;
  return (
    <>
      {capacity !== null && capacity <= MOST_DRAWN && (
        <span className={styles.slots} aria-hidden="true">
          {Array.from({ length: capacity }, (_, place) => (
            <i key={place} data-used={place < used || undefined} />
          ))}
        </span>
      )}{" "}
      {text}
    </>
  );
}
