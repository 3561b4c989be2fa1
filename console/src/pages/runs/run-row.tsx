import { memo } from "react";
import type { RunSummary } from "../../api/client";
import { Labels, Status } from "../../design/parts";
import { RowLink } from "../../design/row-link";
import { Duration, Time } from "../../design/time";
import styles from "./runs.module.css";

interface Row {
  run: RunSummary;
  index: number;
  top: number;
  isFaded: boolean;
  isChosen: boolean;
  /** Id of the element where the keys are at this row. */
  currentId: string | undefined;
  /** Choose the row or leave it out; `isRange` with those from the row that was chosen last. */
  toggle: (id: string, isRange: boolean) => void;
}

export const RunRow = memo(function RunRow({ run, index, top, isFaded, isChosen, currentId, toggle }: Row) {
  const about = run.error ?? run.prompt ?? "";
  return (
    <div
      role="row"
      id={currentId}
      aria-rowindex={index + 2}
      aria-selected={isChosen}
      className={`${styles.row} ${styles.line}`}
      data-run={run.run_id}
      data-faded={isFaded || undefined}
      data-current={currentId && true}
      style={{ transform: `translateY(${top}px)` }}
    >
      <span role="gridcell" className={styles.choice}>
        <input
          type="checkbox"
          checked={isChosen}
          onChange={(event) => toggle(run.run_id, (event.nativeEvent as MouseEvent).shiftKey)}
          aria-label={`Select ${run.run_id}`}
        />
      </span>
      <span role="gridcell">
        <Status of={run.status} />
      </span>
      <span role="gridcell">
        <RowLink to="runs" id={run.run_id} className={styles.id}>
          {shortId(run.run_id)}
        </RowLink>
      </span>
      <span role="gridcell" className={styles.tags}>
        {run.agent_name && <b title={run.agent_name}>{run.agent_name}</b>}
        <Labels labels={run.labels} />
      </span>
      <span role="gridcell">
        <RowLink to="sessions" id={run.session_id}>
          {shortId(run.session_id)}
        </RowLink>
      </span>
      <span role="gridcell">
        {run.runner_id && (
          <RowLink to="runners" id={run.runner_id}>
            {shortId(run.runner_id)}
          </RowLink>
        )}
        {run.attempt > 1 && <small title="Starts so far"> ×{run.attempt}</small>}
      </span>
      <span role="gridcell">
        <Time at={run.created_at} />
      </span>
      <span role="gridcell">{run.started_at && <Duration start={run.started_at} end={run.completed_at} />}</span>
      <span role="gridcell" className={run.error ? styles.error : styles.about} title={about}>
        {about}
      </span>
    </div>
  );
});

/** Return an id with its prefix and end: the middle of a generated one is mostly time. */
export function shortId(id: string): string {
  const found = /^([a-z]+_)[0-9a-f]{16,}([0-9a-f]{8})$/.exec(id);
  return found ? `${found[1]}…${found[2]}` : id;
}
