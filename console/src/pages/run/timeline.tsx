import { useQuery } from "@tanstack/react-query";
import type { Run } from "../../api/client";
import { runTimeline } from "../../api/queries";
import { Notice, Section } from "../../design/parts";
import { Duration, Time } from "../../design/time";
import styles from "./run.module.css";
import { RunnerLink } from "./run-facts";

const TONES: Record<string, string> = {
  running: "working",
  completed: "done",
  stopped: "done",
  failed: "bad",
  requeued: "bad",
  run_released: "bad",
};

interface Step {
  at: string;
  what: string;
  detail?: string | null;
}

/** Show every attempt of a run, step by step, with the time until the next one. */
export function Timeline({ run }: { run: Run }) {
  const timeline = useQuery(runTimeline(run.run_id));
  const attempts = timeline.data?.attempts ?? [];
  const steps = attempts.flatMap((attempt) => attempt.steps);
  const next = new Map(steps.map((step, place) => [step, steps[place + 1]?.at ?? run.completed_at]));
  return (
    <Section title="Timeline">
      {timeline.isError && <Notice error={timeline.error} />}
      {timeline.data?.truncated_before && <p className={styles.by}>Earlier steps are no longer kept.</p>}
      {attempts.map((attempt, place) => (
        <div key={`${attempt.attempt}-${attempt.steps[0]?.at ?? place}`} className={styles.attempt}>
          {(attempts.length > 1 || attempt.runner_id) && (
            <p className={styles.by}>
              Attempt {attempt.attempt}
              {timeline.data?.retry && ` of ${timeline.data.retry.max_attempts}`}{" "}
              {attempt.runner_id && <RunnerLink id={attempt.runner_id} />}
              {attempt.ended_by === "failed" && ` failed${causeOf(attempt.failure)}`}
              {attempt.ended_by === "returned" && " was given up"}
            </p>
          )}
          {attempt.ended_by === "failed" && attempt.error && attempt.error !== run.error && (
            // biome-ignore lint/a11y/noNoninteractiveTabindex: a long text scrolls by the keyboard, too
            <pre tabIndex={0} className={styles.error}>
              {attempt.error}
            </pre>
          )}
          <Steps steps={attempt.steps} until={(step) => next.get(step as (typeof steps)[number]) ?? null} run={run} />
        </div>
      ))}
    </Section>
  );
}

/** Return the exit code or class that a retry policy saw. */
function causeOf(failure: { exit_code: number | null; error_class: string | null } | null): string {
  const cause = failure?.error_class ?? (failure?.exit_code == null ? null : `exit code ${failure.exit_code}`);
  return cause === null ? "" : ` (${cause})`;
}

function Steps({ steps, until, run }: { steps: Step[]; until: (step: Step) => string | null; run: Run }) {
  return (
    <ol className={styles.timeline}>
      {steps.map((step) => {
        const end = until(step);
        const isLast = end === step.at && run.completed_at !== null;
        return (
          <li key={`${step.what}-${step.at}`} data-tone={TONES[step.what]}>
            <b>{step.what.replaceAll("_", " ")}</b> <Time at={step.at} />
            {!isLast && (
              <span className={styles.took}>
                <Duration start={step.at} end={end} />
              </span>
            )}
            {step.detail && step.detail !== run.error && <span className={styles.took}>{step.detail}</span>}
          </li>
        );
      })}
    </ol>
  );
}
