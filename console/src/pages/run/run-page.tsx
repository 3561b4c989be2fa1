import { useQuery } from "@tanstack/react-query";
import { getRouteApi, Link } from "@tanstack/react-router";
import { Fragment, useState } from "react";
import { Button, Tab, TabList, TabPanel, Tabs } from "react-aria-components";
import { ApiError, accepted, api, type Run } from "../../api/client";
import { UNFINISHED } from "../../api/filters";
import { oneRun, runResult } from "../../api/queries";
import { replaysOf } from "../../api/replays";
import { Confirm } from "../../design/confirm";
import {
  buttonClass,
  Copy,
  dangerClass,
  Empty,
  Loading,
  Notice,
  pageClass,
  Section,
  Status,
  titleClass,
} from "../../design/parts";
import { Value } from "../../design/value";
import { HoldButton } from "./hold";
import { Log } from "./log";
import { Replay } from "./replay";
import styles from "./run.module.css";
import { RunFacts, RunLink } from "./run-facts";
import { Timeline } from "./timeline";
import { WhyRun } from "./why";

const route = getRouteApi("/runs/$runId");

export function RunPage() {
  const { runId } = route.useParams();
  const run = useQuery(oneRun(runId));
  if (run.isPending) {
    return <Loading />;
  }
  if (run.data === undefined) {
    return run.error instanceof ApiError && run.error.status === 404 ? (
      <NoRun id={runId} />
    ) : (
      <Notice error={run.error} />
    );
  }
  return <Shown key={runId} run={run.data} />;
}

function NoRun({ id }: { id: string }) {
  return (
    <Empty isPage title="There is no such run">
      <p>
        <code>{id}</code> is unknown here, was deleted with its session, or belongs to someone else.
      </p>
      <Link to="/runs" search={{}}>
        All runs
      </Link>
    </Empty>
  );
}

function Shown({ run }: { run: Run }) {
  return (
    <div className={pageClass}>
      <div className={titleClass}>
        <h1>
          <code>{run.run_id}</code>
        </h1>
        <Copy text={run.run_id} label="Copy the id" />
        <Status of={run.status} />
        <Stop run={run} />
        <HoldButton run={run} />
        <Again run={run} />
        <Link to="/runs/$runId/diff" params={{ runId: run.run_id }} search={comparedWith(run)} className={buttonClass}>
          Compare
        </Link>
      </div>
      {run.replay_of && (
        <p className={styles.by}>
          Replay of <RunLink id={run.replay_of} />
        </p>
      )}
      <Replays of={run.run_id} />
      {run.error && (
        // biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable by the keyboard
        <pre tabIndex={0} className={styles.error}>
          {run.error}
        </pre>
      )}
      {UNFINISHED.includes(run.status) && <WhyRun id={run.run_id} />}
      <Timeline run={run} />
      <Tabs className={styles.tabs ?? ""}>
        <TabList aria-label="Parts of the run" className={styles.list ?? ""}>
          <Tab id="log">Log</Tab>
          <Tab id="values">Parameters and result</Tab>
          <Tab id="facts">Properties</Tab>
        </TabList>
        <TabPanel id="log">
          <Log session={run.session_id} run={run.run_id} isLive={UNFINISHED.includes(run.status)} />
        </TabPanel>
        <TabPanel id="values" className={styles.values ?? ""}>
          <Value name="Parameters" value={run.parameters} />
          {run.status === "completed" && <ResultOf id={run.run_id} />}
        </TabPanel>
        <TabPanel id="facts">
          <RunFacts run={run} />
        </TabPanel>
      </Tabs>
    </div>
  );
}

function Replays({ of }: { of: string }) {
  const found = useQuery(replaysOf(of)).data;
  if (!found?.runs.length) {
    return null;
  }
  return (
    <p className={styles.by}>
      Replayed as{" "}
      {found.runs.map((run) => (
        <Fragment key={run.run_id}>
          <RunLink id={run.run_id} />{" "}
        </Fragment>
      ))}
      {found.next_cursor && (
        <Link to="/runs" search={{ replay_of: of }}>
          all replays
        </Link>
      )}
    </p>
  );
}

function ResultOf({ id }: { id: string }) {
  const result = useQuery(runResult(id));
  if (result.isPending) {
    return <Loading />;
  }
  if (result.isError) {
    return <Notice error={result.error} />;
  }
  if (result.data === null) {
    return <Section title="Result">No result of this run is kept.</Section>;
  }
  return (
    <>
      <Value name="Result" value={result.data.result_text} />
      {result.data.result_data !== null && <Value name="Result data" value={result.data.result_data} />}
    </>
  );
}

function comparedWith({ replay_of }: Run): { with?: string } {
  return replay_of ? { with: replay_of } : {};
}

/** Offer a replay of a run that has ended; one that goes on cannot be replayed. */
function Again({ run }: { run: Run }) {
  const [asked, setAsked] = useState(false);
  if (UNFINISHED.includes(run.status)) {
    return null;
  }
  return (
    <>
      <Button className={buttonClass} onPress={() => setAsked(true)}>
        Replay…
      </Button>
      {asked && <Replay id={run.run_id} close={() => setAsked(false)} />}
    </>
  );
}

function Stop({ run }: { run: Run }) {
  const [asked, setAsked] = useState(false);
  if (!UNFINISHED.includes(run.status)) {
    return null;
  }
  return (
    <>
      <Button className={dangerClass} onPress={() => setAsked(true)} isDisabled={run.status === "stopping"}>
        Stop
      </Button>
      {asked && (
        <Confirm
          title="Stop this run?"
          action="Stop it"
          close={() => setAsked(false)}
          run={async () =>
            accepted(await api.POST("/runs/{run_id}/stop", { params: { path: { run_id: run.run_id } } }))
          }
        >
          <p>Its runner is told to end the work. A stopped run does not go on; a new one can resume its session.</p>
        </Confirm>
      )}
    </>
  );
}
