import { Button } from "react-aria-components";
import { Sheet } from "../design/confirm";
import { buttonClass } from "../design/parts";
import styles from "./shell.module.css";

const KEYS = [
  ["/", "Search: an id, or filters"],
  ["?", "This help"],
  ["g o", "Overview"],
  ["g r", "Runs"],
  ["g s", "Sessions"],
  ["g c", "Schedules"],
  ["g n", "Runners"],
  ["g e", "Agents and what they name"],
  ["g w", "Webhooks, for users and administrators"],
  ["g a", "Audit, for administrators"],
  ["g k", "Keys, for administrators"],
  ["Enter", "In the search of a log: the next match"],
  ["Shift Enter", "In the search of a log: the match before"],
  ["Ctrl Enter", "In the editor of a replay: submit it"],
  ["Esc", "Close a dialog; select no run"],
];
const LIST_KEYS = [
  ["j k", "Next and previous run of a list"],
  ["Enter", "Open the run"],
  ["x", "Select the run, or leave it out"],
  ["Shift x", "Select all from the run selected last to this one; Shift and a click do too"],
  ["*", "Select all loaded runs"],
];
const SEARCHES = [
  ["run_0197f7a0…", "The run with this id"],
  ["tour-1", "The session with this id"],
  ["lnch_0a1b2c…", "The runner with this id"],
  ["failed", "Runs in a status"],
  ["status:failed,stopped agent:coder", "Runs by status and agent"],
  ["label:team=web session:tour-1", "Runs by label and session"],
  ["since:24h ended:30m not:completed", "Runs created and ended in such periods, not in a status"],
  ['error:"no space" owner:ann', "Runs by a part of their error, and by owner (admins)"],
];

export function Help({ close }: { close: () => void }) {
  return (
    <Sheet title="Keys and search" close={close}>
      <Table rows={KEYS} />
      <Table rows={LIST_KEYS} />
      <Table rows={SEARCHES} />
      <Button className={buttonClass} onPress={close} autoFocus>
        Close
      </Button>
    </Sheet>
  );
}

function Table({ rows }: { rows: string[][] }) {
  return (
    <table className={styles.keys}>
      <tbody>
        {rows.map(([key, meaning]) => (
          <tr key={key}>
            <th scope="row">
              <kbd>{key}</kbd>
            </th>
            <td>{meaning}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
