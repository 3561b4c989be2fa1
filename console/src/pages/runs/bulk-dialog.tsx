import { Button } from "react-aria-components";
import type { Bulk, BulkAction, BulkPlan, BulkScope } from "../../api/bulk";
import { Sheet } from "../../design/confirm";
import { buttonClass, dangerClass, Loading, Notice, Status } from "../../design/parts";
import { Time } from "../../design/time";
import { formatNumber } from "../../format/numbers";
import { shortId } from "./run-row";
import styles from "./runs.module.css";
import { type Step, useBulk } from "./use-bulk";

const TITLES: Record<BulkAction, string> = {
  stop: "Stop runs",
  delete: "Delete runs",
  replay: "Replay runs",
  hold: "Hold runs",
  release: "Release runs",
};
const EFFECTS: Record<BulkAction, string> = {
  stop: "Their runners are told to end the work. Runs that have ended are skipped.",
  delete: "Their sessions are deleted with all runs, logs and results. Sessions with an unfinished run are skipped.",
  replay: "Each gets a new run with the same parameters in a new session. Unfinished runs are skipped.",
  hold: "Runners get none of them until they are released. Runs that have ended are skipped.",
  release: "Runners get them again. Runs that are not held by themselves are skipped.",
};

interface Asked {
  action: BulkAction;
  scope: BulkScope;
  close: () => void;
  done: () => void;
}

/** Say what an action would do, do it when that is confirmed, and show how far it is. */
export function BulkDialog({ action, scope, close, done }: Asked) {
  const { step, error, start, stop } = useBulk(action, scope);
  const end = () => {
    close();
    if (step.at === "ended") {
      done();
    }
  };
  return (
    <Sheet title={TITLES[action]} close={end} role="alertdialog">
      {step.at === "planning" && error === null && <Loading />}
      {step.at === "planned" && <Planned action={action} plans={step.plans} />}
      {step.at === "going" && <Going plans={step.plans} bulks={step.bulks} />}
      {step.at === "ended" && <Ended bulks={step.bulks} isStopped={step.isStopped} />}
      {error !== null && <Notice error={error} />}
      <div className={styles.actions}>
        <Button className={buttonClass} onPress={end} autoFocus>
          {step.at === "planning" || step.at === "planned" ? "Cancel" : "Close"}
        </Button>
        {step.at === "planned" && matchesOf(step) > 0 && (
          <Button className={dangerClass} onPress={() => void start(step.plans)}>
            {TITLES[action].split(" ")[0]} {formatNumber(matchesOf(step))}
          </Button>
        )}
        {step.at === "going" && error === null && (
          <Button className={dangerClass} onPress={stop}>
            Stop here
          </Button>
        )}
      </div>
    </Sheet>
  );
}

function matchesOf(step: Step): number {
  return "plans" in step ? step.plans.reduce((sum, plan) => sum + plan.matches, 0) : 0;
}

function Planned({ action, plans }: { action: BulkAction; plans: BulkPlan[] }) {
  const matches = plans.reduce((sum, plan) => sum + plan.matches, 0);
  const isExact = plans.every((plan) => plan.exact);
  const until = plans.find((plan) => plan.searched_until)?.searched_until;
  const sample = plans[0]?.sample ?? [];
  return (
    <>
      <p>
        <b>
          {formatNumber(matches)} run{matches === 1 ? "" : "s"} match{matches === 1 ? "es" : ""}
        </b>
        {!isExact && !until && ", more may do"}
        {until && (
          <>
            {" "}
            of those since <Time at={until} />; older ones were not looked at
          </>
        )}
        . {EFFECTS[action]}
      </p>
      {sample.length > 0 && (
        <ul className={styles.sample} aria-label="Examples">
          {sample.map((run) => (
            <li key={run.run_id}>
              <Status of={run.status} /> <code>{shortId(run.run_id)}</code> {run.agent_name} <span>{run.prompt}</span>
            </li>
          ))}
          {matches > sample.length && <li>and {formatNumber(matches - sample.length)} more</li>}
        </ul>
      )}
    </>
  );
}

function Going({ plans, bulks }: { plans: BulkPlan[]; bulks: Bulk[] }) {
  const total = plans.reduce((sum, plan) => sum + plan.matches, 0);
  const done = bulks.reduce((sum, bulk) => sum + bulk.done, 0);
  return (
    <>
      <progress className={styles.progress} max={Math.max(total, 1)} value={done} aria-label="Progress" />
      <p aria-live="polite">
        {formatNumber(done)} of {formatNumber(total)} done.{" "}
        {plans.length > 1 ? "Keep this dialog open." : "The work goes on without this dialog."}
      </p>
    </>
  );
}

function Ended({ bulks, isStopped }: { bulks: Bulk[]; isStopped: boolean }) {
  const changed = bulks.reduce((sum, bulk) => sum + bulk.changed, 0);
  const skipped = new Map<string, number>();
  for (const bulk of bulks) {
    for (const [reason, count] of Object.entries(bulk.skipped)) {
      skipped.set(reason, (skipped.get(reason) ?? 0) + count);
    }
  }
  const errors = bulks.flatMap((bulk) => bulk.errors);
  const isFailed = bulks.some((bulk) => bulk.state === "failed");
  return (
    <>
      <p aria-live="polite">
        {isFailed ? "Failed. " : isStopped ? "Stopped. " : ""}
        {formatNumber(changed)} changed.
      </p>
      {skipped.size > 0 && (
        <ul className={styles.sample} aria-label="Skipped">
          {[...skipped].map(([reason, count]) => (
            <li key={reason}>
              {formatNumber(count)} skipped: {reason}
            </li>
          ))}
        </ul>
      )}
      {errors.length > 0 && (
        <ul className={styles.sample} aria-label="Errors">
          {errors.slice(0, 20).map(({ run_id, error }) => (
            <li key={run_id}>
              <code>{shortId(run_id)}</code> {error}
            </li>
          ))}
        </ul>
      )}
    </>
  );
}
