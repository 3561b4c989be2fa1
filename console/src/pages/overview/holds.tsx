import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Button } from "react-aria-components";
import type { Me } from "../../api/client";
import { type Hold, holdList, removeHold } from "../../api/holds";
import { Confirm } from "../../design/confirm";
import { buttonClass, Notice, Section } from "../../design/parts";
import { Table } from "../../design/table";
import { Time } from "../../design/time";
import { RunLink } from "../run/run-facts";

/** Show which runs are held, to release them; nothing while none is. */
export function Holds({ me }: { me: Me }) {
  const holds = useQuery(holdList);
  const [released, setReleased] = useState<Hold | null>(null);
  if (holds.isError) {
    return <Notice error={holds.error} />;
  }
  if (!holds.data?.length) {
    return null;
  }
  return (
    <Section title="Held runs">
      <Table label="Holds" heads={["Hold", "Runs", "Since", "By", "Note", "Change"]}>
        {holds.data.map((hold) => (
          <tr key={hold.name} data-hold={hold.name}>
            <td>{hold.run_id === null ? hold.name : "one run"}</td>
            <td>{hold.run_id === null ? heldBy(hold) : <RunLink id={hold.run_id} />}</td>
            <td>
              <Time at={hold.created_at} />
            </td>
            <td>{hold.held_by ?? "–"}</td>
            <td>{hold.note ?? "–"}</td>
            <td>
              {(hold.run_id !== null || me.role === "admin") && (
                <Button className={buttonClass} onPress={() => setReleased(hold)}>
                  Release
                </Button>
              )}
            </td>
          </tr>
        ))}
      </Table>
      {released && (
        <Confirm
          title="Release these runs?"
          action="Release them"
          close={() => setReleased(null)}
          run={() => removeHold(released)}
        >
          <p>Runs that no other hold applies to are given out at once.</p>
        </Confirm>
      )}
    </Section>
  );
}

function heldBy(hold: Hold): string {
  if (hold.everything) {
    return "all";
  }
  if (hold.agent_name !== null) {
    return `of agent ${hold.agent_name}`;
  }
  const { tags = [], ...named } = hold.demands ?? {};
  const values = Object.entries(named).flatMap(([name, value]) => (value ? [`${name} ${value}`] : []));
  return `that demand ${[...values, ...tags.map((tag) => `#${tag}`)].join(", ")}`;
}
