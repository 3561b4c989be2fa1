import { useInfiniteQuery } from "@tanstack/react-query";
import { getRouteApi } from "@tanstack/react-router";
import { Button, ToggleButton } from "react-aria-components";
import type { Session } from "../../api/client";
import { sessionList } from "../../api/queries";
import { buttonClass, chipClass, Empty, Loading, Notice, pageClass, Status } from "../../design/parts";
import { Table } from "../../design/table";
import { Time } from "../../design/time";
import { submitCommand } from "../commands";
import { SessionLink } from "../run/run-facts";
import styles from "./sessions.module.css";

const route = getRouteApi("/sessions");
const STATUSES = ["pending", "running", "stopping", "idle", "finished", "failed", "stopped"];

export function SessionsPage() {
  const filters = route.useSearch();
  const navigate = route.useNavigate();
  return (
    <div className={pageClass}>
      <h1>Sessions</h1>
      <div className={styles.filters} role="group" aria-label="Filters">
        {STATUSES.map((status) => (
          <ToggleButton
            key={status}
            className={chipClass}
            isSelected={filters.status === status}
            onChange={(on) => void navigate({ search: ({ status: _, ...rest }) => (on ? { ...rest, status } : rest) })}
          >
            {status}
          </ToggleButton>
        ))}
        {filters.parent && (
          <Button className={chipClass} data-selected onPress={() => void navigate({ search: {} })}>
            children of {filters.parent} ✕
          </Button>
        )}
      </div>
      <SessionRows />
    </div>
  );
}

function SessionRows() {
  const filters = route.useSearch();
  const list = useInfiniteQuery(sessionList(filters));
  const sessions = list.data?.pages.flatMap((page) => page.sessions) ?? [];
  if (list.isPending) {
    return <Loading />;
  }
  if (list.isError && sessions.length === 0) {
    return <Notice error={list.error} />;
  }
  if (sessions.length === 0) {
    return (
      <Empty title="No session" {...(filters.status || filters.parent ? {} : { command: submitCommand() })}>
        {filters.status || filters.parent ? "None matches these filters." : "A run starts one."}
      </Empty>
    );
  }
  return (
    <>
      <SessionTable sessions={sessions} />
      {list.hasNextPage && (
        <Button className={buttonClass} onPress={() => void list.fetchNextPage()} isDisabled={list.isFetchingNextPage}>
          Show more
        </Button>
      )}
    </>
  );
}

export function SessionTable({ sessions }: { sessions: Session[] }) {
  return (
    <Table label="Sessions" heads={["Status", "Session", "Agent", "Parent", "Owner", "Host", "Created"]}>
      {sessions.map((session) => (
        <tr key={session.session_id} data-session={session.session_id}>
          <td>
            <Status of={session.status} />
          </td>
          <td>
            <SessionLink id={session.session_id} />
          </td>
          <td>{session.agent_name}</td>
          <td>{session.parent_session_id && <SessionLink id={session.parent_session_id} />}</td>
          <td>{session.owner}</td>
          <td>{session.hostname}</td>
          <td>
            <Time at={session.created_at} />
          </td>
        </tr>
      ))}
    </Table>
  );
}
