import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { getRouteApi, Link } from "@tanstack/react-router";
import { useMemo } from "react";
import { Button } from "react-aria-components";
import { type AuditEntry, type AuditFilters, auditLog } from "../../api/administration";
import { whoAmI } from "../../api/queries";
import { buttonClass, Empty, Loading, Notice, pageClass, quietClass } from "../../design/parts";
import { Table } from "../../design/table";
import { Time } from "../../design/time";
import { useLiveAudit } from "../../live/audit";
import { RunLink, RunnerLink, SessionLink } from "../run/run-facts";
import styles from "./administration.module.css";
import { AuditFields } from "./audit-fields";

const route = getRouteApi("/audit");

export function AuditPage() {
  const me = useQuery(whoAmI).data;
  if (!me) {
    return <Loading />;
  }
  if (me.role !== "admin") {
    return (
      <Empty isPage title="The audit log is shown to administrators">
        It lists what they do to what others own.
      </Empty>
    );
  }
  return <Acts isOpen={!me.auth} />;
}

function Acts({ isOpen }: { isOpen: boolean }) {
  const search = route.useSearch();
  const text = JSON.stringify(search);
  const filters = useMemo(() => JSON.parse(text) as AuditFilters, [text]);
  useLiveAudit();
  const log = useInfiniteQuery(auditLog(filters));
  const entries = log.data?.pages.flatMap((page) => page.entries) ?? [];
  return (
    <div className={pageClass}>
      <h1>Audit</h1>
      <AuditFields key={text} filters={filters} />
      {log.isPending && <Loading />}
      {log.isError && <Notice error={log.error} />}
      {log.data && entries.length === 0 && !log.hasNextPage && (
        <NoActs isOpen={isOpen} isFiltered={Object.keys(filters).length > 0} />
      )}
      {entries.length > 0 && <ActTable entries={entries} />}
      {log.hasNextPage && (
        <Button className={buttonClass} onPress={() => void log.fetchNextPage()} isDisabled={log.isFetchingNextPage}>
          {log.isFetchingNextPage ? "Reading…" : "Show more"}
        </Button>
      )}
    </div>
  );
}

function NoActs({ isOpen, isFiltered }: { isOpen: boolean; isFiltered: boolean }) {
  if (isFiltered) {
    return (
      <Empty title="No act matches these filters">
        <Link to="/audit" search={{}} className={quietClass}>
          Show all acts
        </Link>
      </Empty>
    );
  }
  return (
    <Empty title="No act of an administrator yet">
      {isOpen
        ? "Authentication is off: no caller has a name, and nothing is recorded. The first key turns it on."
        : "Here stands what administrators do to keys, and to runs, sessions and runners of others."}
    </Empty>
  );
}

function ActTable({ entries }: { entries: AuditEntry[] }) {
  return (
    <Table label="Acts" heads={["At", "Act", "By", "On", "Of"]}>
      {entries.map((entry, place) => (
        <tr key={`${entry.at} ${entry.target} ${entries.length - place}`} data-act={entry.act}>
          <td>
            <Time at={entry.at} />
          </td>
          <td>
            <Filter by={{ act: entry.act }} text={entry.act.replaceAll("_", " ")} />
          </td>
          <td title={entry.by}>
            <Filter by={{ by: entry.by }} text={entry.by} />
          </td>
          <td title={entry.target}>
            <Filter by={{ target: entry.target }} text={entry.target} /> <Opened target={entry.target} />
          </td>
          <td title={entry.owner ?? undefined}>{entry.owner ?? "–"}</td>
        </tr>
      ))}
    </Table>
  );
}

/** Narrow the list to entries like this one. */
function Filter({ by, text }: { by: AuditFilters; text: string }) {
  return (
    <route.Link to="/audit" search={(known: AuditFilters) => ({ ...known, ...by })} className={styles.filter ?? ""}>
      {text}
    </route.Link>
  );
}

/** Lead to what the act was done to, as far as there is a page of it. */
function Opened({ target }: { target: string }) {
  if (target.startsWith("run_")) {
    return <RunLink id={target} label="open" />;
  }
  if (target.startsWith("ses_")) {
    return <SessionLink id={target} label="open" />;
  }
  return target.startsWith("lnch_") ? <RunnerLink id={target} label="open" /> : null;
}
