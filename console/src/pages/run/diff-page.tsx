import { useQuery } from "@tanstack/react-query";
import { getRouteApi, Link } from "@tanstack/react-router";
import { type FormEvent, useState } from "react";
import { Button } from "react-aria-components";
import type { Run } from "../../api/client";
import { oneRun } from "../../api/queries";
import { previousOfAgent, resultText, runText } from "../../api/replays";
import { buttonClass, Empty, Loading, Notice, pageClass, Status, titleClass } from "../../design/parts";
import { comparableMember } from "../../format/compare";
import styles from "./diff.module.css";
import { TimesAndProperties } from "./diff-facts";
import { Differences } from "./differences";
import { RunLink } from "./run-facts";

const route = getRouteApi("/runs/$runId/diff");

/** Compare a run with another: times, properties, parameters, demands, result. */
export function DiffPage() {
  const { runId } = route.useParams();
  const { with: other } = route.useSearch();
  const run = useQuery(oneRun(runId));
  return (
    <div className={pageClass}>
      <div className={titleClass}>
        <h1>
          Compare <RunLink id={runId} />
        </h1>
      </div>
      {run.isPending && <Loading />}
      {run.isError && <Notice error={run.error} />}
      {run.data && <Chooser key={`${runId} ${other}`} run={run.data} other={other} />}
      {run.data && other && <Compared run={run.data} other={other} />}
      {run.data && !other && (
        <Empty title="Choose a run to compare it with">Give its id, or take one of those above.</Empty>
      )}
    </div>
  );
}

function Chooser({ run, other }: { run: Run; other: string | undefined }) {
  const [id, setId] = useState(other ?? "");
  const navigate = route.useNavigate();
  const previous = useQuery(previousOfAgent(run)).data;
  const offered = [
    [run.replay_of, "The run that it replays"],
    [previous, "The previous run of this agent"],
  ] as const;
  const submit = (event: FormEvent) => {
    event.preventDefault();
    void navigate({ search: { with: id.trim() } });
  };
  return (
    <form className={styles.chooser} onSubmit={submit} aria-label="Compare with">
      <label>
        With{" "}
        <input
          value={id}
          onChange={(event) => setId(event.target.value)}
          placeholder="run_…"
          required
          spellCheck={false}
        />
      </label>
      <Button type="submit" className={buttonClass}>
        Compare
      </Button>
      {offered.map(([found, name]) =>
        found ? (
          <Link key={name} to="/runs/$runId/diff" params={{ runId: run.run_id }} search={{ with: found }}>
            {name}
          </Link>
        ) : null,
      )}
      {other && (
        <Link to="/runs/$runId/diff" params={{ runId: other }} search={{ with: run.run_id }}>
          The other way round
        </Link>
      )}
    </form>
  );
}

function Compared({ run, other }: { run: Run; other: string }) {
  const second = useQuery(oneRun(other));
  const texts = [useQuery(runText(other)), useQuery(runText(run.run_id))] as const;
  const results = [useQuery(resultText(other)), useQuery(resultText(run.run_id))] as const;
  const [fault] = [second, ...texts, ...results].filter((query) => query.isError);
  if (fault) {
    return <Notice error={fault.error} />;
  }
  if (!second.data || [...texts, ...results].some((query) => query.data === undefined)) {
    return <Loading />;
  }
  const runs = [second.data, run] as const;
  const member = (name: string) => texts.map(({ data }) => comparableMember(data ?? null, name));
  const result = (name: string) => results.map(({ data }) => comparableMember(data ?? null, name));
  const parts = [
    ["Parameters", member("parameters")],
    ["Result", result("result_text")],
    ["Result data", result("result_data")],
    ["Error", member("error")],
    ["Demands", member("demands")],
    ["Labels", member("labels")],
  ] as const;
  return (
    <>
      <p className={styles.legend}>
        <span data-sign="-">− only in</span> <RunLink id={other} /> <Status of={second.data.status} />{" "}
        <span data-sign="+">+ only in</span> <RunLink id={run.run_id} /> <Status of={run.status} />
      </p>
      <TimesAndProperties runs={runs} />
      {parts.map(([name, [first = "", last = ""]]) => (
        <Differences key={name} title={name} first={first} second={last} />
      ))}
    </>
  );
}
