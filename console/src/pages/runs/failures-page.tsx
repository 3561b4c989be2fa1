import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useState } from "react";
import { Button } from "react-aria-components";
import { type FailureGroup, failureGroups, partOf } from "../../api/failures";
import { whoAmI } from "../../api/queries";
import { buttonClass, Empty, Loading, Notice, pageClass, titleClass } from "../../design/parts";
import { Table } from "../../design/table";
import { Time } from "../../design/time";
import { formatNumber } from "../../format/numbers";
import { RunLink } from "../run/run-facts";
import { BulkDialog } from "./bulk-dialog";
import styles from "./runs.module.css";

/** Show failed runs by what failed, to look at one and to replay all. */
export function FailuresPage() {
  const me = useQuery(whoAmI).data;
  if (!me) {
    return <Loading />;
  }
  return me.role === "runner" ? (
    <Empty isPage title="Failures are shown to users and administrators">
      Ask one for a key of another role.
    </Empty>
  ) : (
    <Failures />
  );
}

function Failures() {
  const found = useQuery(failureGroups);
  const [replayed, setReplayed] = useState<FailureGroup | null>(null);
  const groups = found.data?.groups ?? [];
  return (
    <div className={pageClass}>
      <div className={titleClass}>
        <h1>Failures</h1>
        {found.data && <span>of the newest {formatNumber(found.data.runs)} failed runs</span>}
      </div>
      {found.isPending && <Loading />}
      {found.isError && <Notice error={found.error} />}
      {found.data && groups.length === 0 && <Empty title="No run has failed">Nothing is to be done here.</Empty>}
      {groups.length > 0 && (
        <Table label="Failures" heads={["Runs", "Error", "Agents", "First", "Last", "Newest run", "Change"]}>
          {groups.map((group) => (
            <tr key={group.fingerprint} data-failure={group.fingerprint}>
              <td>{formatNumber(group.count)}</td>
              <td title={group.example ?? undefined}>
                <Runs of={group} />
              </td>
              <td>{Object.keys(group.agents).join(", ") || "–"}</td>
              <td>
                <Time at={group.oldest_at} />
              </td>
              <td>
                <Time at={group.newest_at} />
              </td>
              <td>
                <RunLink id={group.newest_run_id} />
              </td>
              <td>
                <Button className={buttonClass} onPress={() => setReplayed(group)}>
                  Replay…
                </Button>
              </td>
            </tr>
          ))}
        </Table>
      )}
      {found.data?.searched_until && (
        <p>
          Runs before <Time at={found.data.searched_until} /> were not looked at.
        </p>
      )}
      {replayed && (
        <BulkDialog
          action="replay"
          scope={{ ids: replayed.run_ids }}
          close={() => setReplayed(null)}
          done={() => setReplayed(null)}
        />
      )}
    </div>
  );
}

function Runs({ of }: { of: FailureGroup }) {
  const part = partOf(of);
  const text = <code className={styles.failure}>{of.text}</code>;
  return part === null ? (
    text
  ) : (
    <Link to="/runs" search={{ status: ["failed"], error: part }}>
      {text}
    </Link>
  );
}
