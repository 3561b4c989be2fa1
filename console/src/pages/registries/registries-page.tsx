import { useQuery } from "@tanstack/react-query";
import { getRouteApi } from "@tanstack/react-router";
import { ToggleButton } from "react-aria-components";
import { whoAmI } from "../../api/queries";
import { type Entry, entryList, keyOf, REGISTRIES, type Registry } from "../../api/registries";
import { chipClass, Empty, Loading, Notice, pageClass } from "../../design/parts";
import { Table } from "../../design/table";
import { Time } from "../../design/time";
import { useLiveAudit } from "../../live/audit";
import { EntryPage } from "./entry-page";
import styles from "./registries.module.css";

const route = getRouteApi("/agents");

export const NAMES: Record<Registry, string> = {
  agents: "Agents",
  capabilities: "Capabilities",
  scripts: "Scripts",
  "mcp-servers": "MCP servers",
};
const COLUMNS: Record<Registry, readonly [string, (entry: Entry) => string][]> = {
  agents: [
    ["Type", (entry) => entry.type ?? ""],
    ["Status", (entry) => entry.status ?? ""],
    ["Tags", (entry) => entry.tags?.join(", ") ?? ""],
  ],
  capabilities: [
    ["Type", (entry) => entry.type ?? ""],
    ["Script", (entry) => entry.script_name ?? ""],
    ["MCP servers", (entry) => entry.mcp_server_names?.join(", ") ?? ""],
  ],
  scripts: [
    ["File", (entry) => entry.script_file ?? ""],
    ["Demanded tags", (entry) => entry.demand_tags?.join(", ") ?? ""],
  ],
  "mcp-servers": [
    ["Name", (entry) => entry.name],
    ["URL", (entry) => entry.url ?? ""],
  ],
};

export function RegistriesPage() {
  const { registry = "agents", name } = route.useSearch();
  const isAdmin = useQuery(whoAmI).data?.role === "admin";
  return (
    <>
      {isAdmin && <Live />}
      {name ? <EntryPage registry={registry} name={name} /> : <EntriesPage registry={registry} />}
    </>
  );
}

function Live() {
  useLiveAudit("registries");
  return null;
}

function EntriesPage({ registry }: { registry: Registry }) {
  const navigate = route.useNavigate();
  const list = useQuery(entryList(registry));
  return (
    <div className={pageClass}>
      <h1>{NAMES[registry]}</h1>
      <div className={styles.kinds} role="group" aria-label="Registries">
        {REGISTRIES.map((each) => (
          <ToggleButton
            key={each}
            className={chipClass}
            isSelected={each === registry}
            onChange={() => void navigate({ search: { registry: each } })}
          >
            {NAMES[each]}
          </ToggleButton>
        ))}
      </div>
      {list.isPending && <Loading />}
      {list.isError && <Notice error={list.error} />}
      {list.data?.length === 0 && (
        <Empty title="Nothing is registered" command={`coordinator ${registry} put FILE`}>
          Administrators write entries.
        </Empty>
      )}
      {list.data !== undefined && list.data.length > 0 && <Entries registry={registry} entries={list.data} />}
    </div>
  );
}

function Entries({ registry, entries }: { registry: Registry; entries: Entry[] }) {
  const columns = COLUMNS[registry];
  return (
    <Table label={NAMES[registry]} heads={["Entry", ...columns.map(([head]) => head), "Description", "Changed"]}>
      {entries.map((entry) => {
        const name = keyOf(registry, entry);
        const changed = entry.modified_at ?? entry.updated_at;
        return (
          // An agent of a runner, which has no time, may have the name of one of the registry.
          <tr key={`${name} ${changed ? "" : "of a runner"}`} data-entry={name}>
            <td>
              <route.Link to="/agents" search={{ registry, name }}>
                {name}
              </route.Link>
            </td>
            {columns.map(([head, of]) => (
              <td key={head}>{of(entry)}</td>
            ))}
            <td className={styles.description}>{entry.description}</td>
            <td>{changed ? <Time at={changed} /> : "with its runner"}</td>
          </tr>
        );
      })}
    </Table>
  );
}
