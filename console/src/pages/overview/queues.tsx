import { useQuery } from "@tanstack/react-query";
import { queueList } from "../../api/overview";
import type { components } from "../../api/schema";
import { Loading, Notice, Section } from "../../design/parts";
import { Table } from "../../design/table";
import { Duration } from "../../design/time";
import { formatDuration } from "../../format/times";
import styles from "./overview.module.css";

type Queue = components["schemas"]["Queue"];

const HEADS = ["Demands", "Ready", "Oldest ready", "Waiting", "In hand", "Matching runners", "Claimed", "Until empty"];

export function Queues() {
  const queues = useQuery(queueList);
  return (
    <Section title="Queues">
      {queues.isPending && <Loading />}
      {queues.isError && <Notice error={queues.error} />}
      {queues.data?.queues.length === 0 && <p className={styles.note}>Empty: every run has ended.</p>}
      {queues.data !== undefined && queues.data.queues.length > 0 && <QueueTable queues={queues.data.queues} />}
      {queues.data?.truncated && <p className={styles.note}>There are more than these 500.</p>}
    </Section>
  );
}

function QueueTable({ queues }: { queues: Queue[] }) {
  return (
    <Table label="List of queues" heads={HEADS} className={styles.queues}>
      {queues.map((queue) => (
        <tr key={queue.profile_id} data-queue={queue.profile_id}>
          <td title={demandsOf(queue)}>{demandsOf(queue)}</td>
          <td>{queue.ready.toLocaleString("en")}</td>
          <td>{queue.oldest_ready_at && <Duration start={queue.oldest_ready_at} end={null} />}</td>
          <td>{queue.waiting.toLocaleString("en")}</td>
          <td>{queue.in_hand.toLocaleString("en")}</td>
          <td>
            <Matching queue={queue} />
          </td>
          <td>{queue.claims_per_minute.toFixed(1)} a minute</td>
          <td>{queue.eta_seconds !== null && queue.ready > 0 ? `about ${formatDuration(queue.eta_seconds)}` : "–"}</td>
        </tr>
      ))}
    </Table>
  );
}

function demandsOf({ demands }: Queue): string {
  const named = Object.entries(demands).filter(([, value]) => value !== null && String(value) !== "");
  return (
    named.map(([name, value]) => `${name.replaceAll("_", " ")}: ${[value].flat().join(", ")}`).join(" · ") || "none"
  );
}

function Matching({ queue }: { queue: Queue }) {
  const { online, stale, full, free_slots: free, unlimited } = queue.matching_runners;
  if (online === 0) {
    return <b className={styles.bad}>{stale > 0 ? `none online, ${stale} silent` : "none"}</b>;
  }
  const slots = unlimited > 0 ? "no bound" : full === online ? "all full" : `${free} free`;
  return `${online} online, ${slots}${stale > 0 ? `, ${stale} silent` : ""}`;
}
