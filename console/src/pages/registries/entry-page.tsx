import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useState } from "react";
import { Button } from "react-aria-components";
import { whoAmI } from "../../api/queries";
import { type Entry, oneEntry, type Registry, setAgentStatus } from "../../api/registries";
import { Confirm } from "../../design/confirm";
import { buttonClass, Copy, Loading, Notice, pageClass, quietClass, titleClass } from "../../design/parts";
import { Value } from "../../design/value";

/** Show an entry as it was written; an agent also with its capabilities merged, as its runs get it. */
export function EntryPage({ registry, name }: { registry: Registry; name: string }) {
  const entry = useQuery(oneEntry(registry, name));
  return (
    <div className={pageClass}>
      <div className={titleClass}>
        <h1>
          <code>{name}</code>
        </h1>
        <Copy text={name} label="Copy the name" />
        {registry === "agents" && entry.data && <StatusButton agent={entry.data} />}
      </div>
      <Link to="/agents" search={{ registry }} className={quietClass}>
        All of this kind
      </Link>
      {entry.isPending && <Loading />}
      {entry.isError && <Notice error={entry.error} />}
      {entry.data && <Value name="As written" value={entry.data} />}
      {registry === "agents" && <Resolved name={name} />}
    </div>
  );
}

function Resolved({ name }: { name: string }) {
  const agent = useQuery(oneEntry("agents", name, true));
  if (agent.isError) {
    return <Notice error={agent.error} />;
  }
  return agent.data ? <Value name="Resolved" value={agent.data} /> : null;
}

/** Activate or deactivate an agent of the registry; for administrators. */
function StatusButton({ agent }: { agent: Entry }) {
  const [asked, setAsked] = useState(false);
  const me = useQuery(whoAmI).data;
  // Agents of runners have no time.
  if (me?.role !== "admin" || !agent.created_at) {
    return null;
  }
  const isActive = agent.status === "active";
  return (
    <>
      <Button className={buttonClass} onPress={() => setAsked(true)}>
        {isActive ? "Deactivate…" : "Activate…"}
      </Button>
      {asked && (
        <Confirm
          title={isActive ? "Deactivate this agent?" : "Activate this agent?"}
          action={isActive ? "Deactivate it" : "Activate it"}
          close={() => setAsked(false)}
          run={() => setAgentStatus(agent.name, isActive ? "inactive" : "active")}
        >
          <p>Clients that list agents see the status. Runs that name the agent are accepted in either.</p>
        </Confirm>
      )}
    </>
  );
}
