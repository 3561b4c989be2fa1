import { useQuery } from "@tanstack/react-query";
import { getRouteApi, Link } from "@tanstack/react-router";
import type { ReactNode } from "react";
import { Tab, TabList, TabPanel, Tabs } from "react-aria-components";
import { ApiError, type Session, type TreeNode } from "../../api/client";
import { oneSession, sessionTree } from "../../api/queries";
import { Copy, Empty, Fact, Facts, Loading, Notice, pageClass, Section, Status, titleClass } from "../../design/parts";
import { Time } from "../../design/time";
import { Log } from "../run/log";
import runStyles from "../run/run.module.css";
import { SessionLink } from "../run/run-facts";
import runsStyles from "../runs/runs.module.css";
import { RunList } from "../runs/runs-page";
import styles from "./sessions.module.css";

const route = getRouteApi("/sessions/$sessionId");

export function SessionPage() {
  const { sessionId } = route.useParams();
  const session = useQuery(oneSession(sessionId));
  if (session.isPending) {
    return <Loading />;
  }
  if (session.data === undefined) {
    if (session.error instanceof ApiError && session.error.status === 404) {
      return (
        <Empty isPage title="There is no such session">
          <p>
            <code>{sessionId}</code> is unknown here, was deleted, or belongs to someone else.
          </p>
          <Link to="/sessions" search={{}}>
            All sessions
          </Link>
        </Empty>
      );
    }
    return <Notice error={session.error} />;
  }
  return <Shown key={sessionId} session={session.data} />;
}

function Shown({ session }: { session: Session }) {
  const id = session.session_id;
  const isLive = !["finished", "failed", "stopped", "idle"].includes(session.status);
  return (
    <div className={pageClass}>
      <div className={titleClass}>
        <h1>
          <code>{id}</code>
        </h1>
        <Copy text={id} label="Copy the id" />
        <Status of={session.status} />
      </div>
      <SessionFacts session={session} />
      <Tabs className={runStyles.tabs ?? ""}>
        <TabList aria-label="Parts of the session" className={runStyles.list ?? ""}>
          <Tab id="runs">Runs</Tab>
          <Tab id="tree">Tree</Tab>
          <Tab id="log">Log</Tab>
        </TabList>
        <TabPanel id="runs" className={runsStyles.page ?? ""}>
          <RunList filters={{ session: id }} />
        </TabPanel>
        <TabPanel id="tree">
          <Tree session={session} />
        </TabPanel>
        <TabPanel id="log">
          <Log session={id} run={null} isLive={isLive} />
        </TabPanel>
      </Tabs>
    </div>
  );
}

function SessionFacts({ session }: { session: Session }) {
  const facts: [string, ReactNode][] = [
    ["Created", <Time key="c" at={session.created_at} />],
    ["Agent", session.agent_name],
    ["Owner", session.owner],
    ["Host", session.hostname],
    ["Executor profile", session.executor_profile],
    ["Executor session", session.executor_session_id],
    ["Project directory", session.project_dir],
    ["Last resumed", session.last_resumed_at && <Time key="r" at={session.last_resumed_at} />],
  ];
  return (
    <Section title="Properties">
      <Facts>
        {facts.map(([name, value]) => (
          <Fact key={name} name={name}>
            {value ?? "–"}
          </Fact>
        ))}
      </Facts>
    </Section>
  );
}

/** Show the sessions under this one, and what their runs came to. */
function Tree({ session }: { session: Session }) {
  const tree = useQuery(sessionTree(session.session_id));
  if (tree.isPending) {
    return <Loading />;
  }
  if (tree.isError) {
    return <Notice error={tree.error} />;
  }
  const { root, nodes, truncated } = tree.data;
  return (
    <>
      {session.parent_session_id && (
        <p>
          Started by <SessionLink id={session.parent_session_id} />
        </p>
      )}
      <ul className={styles.tree}>
        <Branch id={root} nodes={nodes} />
      </ul>
      {nodes.length === 1 && <p>It has started no other session.</p>}
      {truncated && <p>There are more; open a session to see those under it.</p>}
    </>
  );
}

function Branch({ id, nodes }: { id: string; nodes: TreeNode[] }) {
  const node = nodes.find((each) => each.session_id === id);
  const children = nodes.filter((each) => each.parent_session_id === id && each.session_id !== id);
  if (!node) {
    return null;
  }
  const runs = Object.entries(node.runs).map(([status, count]) => `${count} ${status}`);
  return (
    <li>
      <Status of={node.status} /> <SessionLink id={id} /> {node.agent_name}{" "}
      <small>{runs.length > 0 ? `runs: ${runs.join(", ")}` : "no run"}</small>
      {children.length > 0 && (
        <ul>
          {children.map((child) => (
            <Branch key={child.session_id} id={child.session_id} nodes={nodes} />
          ))}
        </ul>
      )}
    </li>
  );
}
