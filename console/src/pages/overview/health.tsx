import { useQuery } from "@tanstack/react-query";
import type { Me } from "../../api/client";
import { systemState } from "../../api/overview";
import type { components } from "../../api/schema";
import { Fact, Facts, Loading, Notice, Section } from "../../design/parts";
import { Time } from "../../design/time";
import { formatDuration } from "../../format/times";
import styles from "./overview.module.css";

type System = components["schemas"]["System"];

// As the alerts of deploy/observability have it.
const LATE_SECONDS: Record<string, number> = {
  dispatch: 15,
  broadcast: 15,
  callbacks: 15,
  expire: 15,
  stats: 120,
  upkeep: 3600,
  retention: 3600,
};
const SILENT_SECONDS = 15;

/** Show the state of the coordinator itself: to administrators its parts, to others that it answers. */
export function Health({ me }: { me: Me }) {
  if (me.role !== "admin") {
    return (
      <Section title="Coordinator">
        <p className={styles.note}>Version {me.version} answers. Administrators see its processes and duties here.</p>
      </Section>
    );
  }
  return (
    <Section title="Coordinator">
      <State />
    </Section>
  );
}

function State() {
  const state = useQuery(systemState);
  if (state.data === undefined) {
    return state.isError ? <Notice error={state.error} /> : <Loading />;
  }
  const { versions, gaps, feed } = state.data;
  const [gap] = gaps;
  return (
    <Facts>
      <Fact name="Version">
        {versions.coordinator}, schema {versions.schema_found ?? "none"}
        {versions.schema_found !== versions.schema_needed && (
          <b className={styles.bad}> (needs {versions.schema_needed})</b>
        )}
      </Fact>
      <Fact name="Web processes">
        <Signs signs={state.data.instances} lateAfter={() => SILENT_SECONDS} word="silent" />
      </Fact>
      <Fact name="Duties of workers">
        <Signs signs={state.data.duties} lateAfter={({ name }) => LATE_SECONDS[name]} word="late" />
      </Fact>
      <Fact name="Feed">
        position {feed.head.toLocaleString("en")}, {Math.max(0, feed.head - feed.counted).toLocaleString("en")} not yet
        in the history
      </Fact>
      <Fact name="Last outage">
        {gap ? (
          <>
            {gap.kind}, <Time at={gap.started_at} /> to <Time at={gap.ended_at} />
          </>
        ) : (
          "none"
        )}
      </Fact>
    </Facts>
  );
}

type Sign = System["duties"][number];

interface Shown {
  signs: Sign[];
  lateAfter: (sign: Sign) => number | undefined;
  word: string;
}

/** Say how many are on time, and which are not; the title tells when each was last heard of. */
function Signs({ signs, lateAfter, word }: Shown) {
  const late = signs.filter((sign) => sign.age_seconds > (lateAfter(sign) ?? Number.POSITIVE_INFINITY));
  const ages = signs.map((sign) => `${sign.name}: ${formatDuration(sign.age_seconds)} ago`);
  if (signs.length === 0) {
    return <b className={styles.bad}>none was ever heard of</b>;
  }
  return (
    <span title={ages.join("\n")}>
      {signs.length - late.length} on time
      {late.map((sign) => (
        <b key={sign.name} className={styles.bad}>
          {" "}
          · {sign.name} {word} for {formatDuration(sign.age_seconds)}
        </b>
      ))}
    </span>
  );
}
