import { useQuery } from "@tanstack/react-query";
import type { ReactNode } from "react";
import type { Explanation } from "../../api/client";
import { whyIdle, whyRun } from "../../api/queries";
import { Notice, Section } from "../../design/parts";
import { Time } from "../../design/time";
import styles from "./run.module.css";

/** Explain why a run does not run, by what the coordinator itself decides by. */
export function WhyRun({ id }: { id: string }) {
  const why = useQuery(whyRun(id));
  if (why.isError) {
    return <Notice error={why.error} />;
  }
  if (!why.data) {
    return null;
  }
  const { runners, ahead } = why.data;
  return (
    <Explained title="Why" explanation={why.data}>
      {runners && Object.keys(runners.rejected).length > 0 && (
        <p className={styles.by}>
          Of {runners.known} runners {runners.match} match;{" "}
          {Object.entries(runners.rejected)
            .map(([lack, count]) => `${count}: ${lack}`)
            .join(", ")}
          .
        </p>
      )}
      {ahead && ahead.count > 0 && (
        <p className={styles.by}>
          {ahead.exact ? "" : "At least "}
          {ahead.count} runs go first.
        </p>
      )}
    </Explained>
  );
}

export function WhyIdle({ id }: { id: string }) {
  const why = useQuery(whyIdle(id));
  if (why.isError) {
    return <Notice error={why.error} />;
  }
  return why.data ? <Explained title="Why it gets no run" explanation={why.data} /> : null;
}

function Explained({
  title,
  explanation,
  children,
}: {
  title: string;
  explanation: Explanation;
  children?: ReactNode;
}) {
  return (
    <Section title={title}>
      <p className={styles.headline}>{explanation.headline}</p>
      <ul className={styles.reasons}>
        {explanation.reasons.map((reason) => (
          <li key={`${reason.code} ${reason.text}`} data-blocking={reason.blocking || undefined}>
            <span>{reason.text}</span>
            {reason.since && (
              <small>
                {" "}
                since <Time at={reason.since} />
              </small>
            )}
            {reason.until && (
              <small>
                {" "}
                until <Time at={reason.until} />
              </small>
            )}
            {reason.fix && <small className={styles.fix}>{reason.fix}</small>}
          </li>
        ))}
      </ul>
      {children}
    </Section>
  );
}
