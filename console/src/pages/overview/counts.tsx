import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { runCounts } from "../../api/overview";
import { Loading, Notice, Section } from "../../design/parts";
import { Time } from "../../design/time";
import styles from "./overview.module.css";

/** Show how many runs there are in each status now, and how many ended in the last 24 hours. */
export function Counts() {
  const counts = useQuery(runCounts);
  if (counts.data === undefined) {
    return <Section title="Runs">{counts.isError ? <Notice error={counts.error} /> : <Loading />}</Section>;
  }
  const { now, ended, window, exact, as_of } = counts.data;
  return (
    <Section
      title="Runs"
      aside={
        <Link to="/runs" search={{ all: true }}>
          All runs
        </Link>
      }
    >
      <div className={styles.counts}>
        <h3>Now</h3>
        <dl>
          <Count name="ready" status="pending" value={now.pending.ready} />
          <Count name="delayed" status="pending" value={now.pending.delayed} />
          <Count name="waiting" status="pending" value={now.pending.waiting} />
          <Count name="claimed" value={now.claimed} />
          <Count name="running" value={now.running} />
          <Count name="stopping" value={now.stopping} />
        </dl>
        <h3>Last 24 hours</h3>
        <dl>
          <Count name="completed" value={ended.completed} since={window.since} />
          <Count name="failed" value={ended.failed} since={window.since} />
          <Count name="stopped" value={ended.stopped} since={window.since} />
        </dl>
      </div>
      <p className={styles.note}>
        Runs that ended are counted since <Time at={window.since} />
        {!exact && (
          <>
            , counted up to <Time at={as_of} />
          </>
        )}
        .
      </p>
    </Section>
  );
}

interface Counted {
  name: string;
  status?: string;
  value: number;
  /** Begin of the period in which the counted runs ended. */
  since?: string;
}

/** Show a number that leads to its runs. */
function Count({ name, status = name, value, since }: Counted) {
  const search = { status: [status], ...(since ? { ended_after: since, order: "ended" as const } : {}) };
  return (
    <div data-count={name}>
      <dt>{name}</dt>
      <dd>
        <Link to="/runs" search={search} aria-label={`${value} ${name}`}>
          {value.toLocaleString("en")}
        </Link>
      </dd>
    </div>
  );
}
