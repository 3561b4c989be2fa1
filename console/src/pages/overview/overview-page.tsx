import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { UNFINISHED } from "../../api/filters";
import { runnerList, whoAmI } from "../../api/queries";
import { Loading, Notice, pageClass, Section, Status } from "../../design/parts";
import { useOverviewPace } from "../../live/pace";
import { Slots } from "../runners/runners-page";
import { RunList } from "../runs/runs-page";
import { Charts } from "./charts";
import { Counts } from "./counts";
import { Health } from "./health";
import { Holds } from "./holds";
import styles from "./overview.module.css";
import { Queues } from "./queues";

const UNFINISHED_FILTERS = { status: [...UNFINISHED] };
const TROUBLE_FILTERS = { status: ["failed", "stopped"] };

/** Show how things are at a glance, as far as the role of this page may see it. */
export function OverviewPage() {
  const me = useQuery(whoAmI).data;
  useOverviewPace();
  if (!me) {
    return <Loading />;
  }
  return (
    <div className={pageClass}>
      <h1>Overview</h1>
      {me.role !== "runner" && (
        <>
          <Counts />
          <Queues />
          <Holds me={me} />
          <Charts />
        </>
      )}
      {me.role !== "user" && <Runners />}
      <Health me={me} />
      <Section
        title="Unfinished runs"
        aside={
          <Link to="/runs" search={UNFINISHED_FILTERS}>
            All unfinished
          </Link>
        }
      >
        <div className={styles.list}>
          <RunList filters={UNFINISHED_FILTERS} />
        </div>
      </Section>
      <Section
        title="Failed and stopped"
        aside={
          <>
            {me.role !== "runner" && <Link to="/failures">By error</Link>}{" "}
            <Link to="/runs" search={TROUBLE_FILTERS}>
              All failed and stopped
            </Link>
          </>
        }
      >
        <div className={styles.list}>
          <RunList filters={TROUBLE_FILTERS} />
        </div>
      </Section>
    </div>
  );
}

function Runners() {
  const runners = useQuery(runnerList);
  return (
    <Section title="Runners" aside={<Link to="/runners">All runners</Link>}>
      {runners.isPending && <Loading />}
      {runners.isError && <Notice error={runners.error} />}
      {runners.data && (
        <ul className={styles.runners}>
          {runners.data.map((runner) => (
            <li key={runner.runner_id}>
              <Status of={runner.status} /> {runner.hostname} {runner.executor_profile} <Slots runner={runner} />
            </li>
          ))}
          {runners.data.length === 0 && <li>None is registered: runs wait.</li>}
        </ul>
      )}
    </Section>
  );
}
