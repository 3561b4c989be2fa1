import { Link } from "@tanstack/react-router";
import { Empty } from "../../design/parts";

/** Explain to a user why there is no list of runners. */
export function RunnersNotShown() {
  return (
    <Empty title="Runners are shown to administrators">
      <p>The page of a run that waits says how many runners match it, and what the others lack.</p>
      <Link to="/runs" search={{ status: ["pending"] }}>
        Runs that wait
      </Link>
    </Empty>
  );
}
