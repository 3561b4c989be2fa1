import { useQuery } from "@tanstack/react-query";
import { getRouteApi, Link } from "@tanstack/react-router";
import type { Runner } from "../../api/client";
import { runnerList } from "../../api/queries";
import { Copy, Empty, Fact, Facts, Loading, Notice, pageClass, Section, Status, titleClass } from "../../design/parts";
import { Time } from "../../design/time";
import { Value } from "../../design/value";
import { WhyIdle } from "../run/why";
import runsStyles from "../runs/runs.module.css";
import { RunList } from "../runs/runs-page";
import { DrainButton, Draining } from "./drain";
import { RunnersNotShown } from "./not-shown";
import { isForbidden, Slots } from "./runners-page";

const route = getRouteApi("/runners/$runnerId");

export function RunnerPage() {
  const { runnerId } = route.useParams();
  const runners = useQuery(runnerList);
  const runner = runners.data?.find((each) => each.runner_id === runnerId);
  if (runners.isPending) {
    return <Loading />;
  }
  const isHidden = isForbidden(runners.error);
  if (runners.data === undefined && !isHidden) {
    return <Notice error={runners.error} />;
  }
  return (
    <div className={pageClass}>
      <div className={titleClass}>
        <h1>
          <code>{runnerId}</code>
        </h1>
        <Copy text={runnerId} label="Copy the id" />
        {runner && (
          <>
            <Status of={runner.status} />
            <Draining runner={runner} />
            <DrainButton runner={runner} />
          </>
        )}
      </div>
      {isHidden && <RunnersNotShown />}
      {!isHidden && !runner && <Gone />}
      {runner && (
        <>
          <WhyIdle id={runnerId} />
          <RunnerFacts runner={runner} />
        </>
      )}
      <Section title="Runs that it claimed last">
        <div className={runsStyles.page}>
          <RunList filters={{ runner: runnerId }} />
        </div>
      </Section>
    </div>
  );
}

function Gone() {
  return (
    <Empty title="This runner is not registered">
      <p>It has left or was forgotten. Its runs are below.</p>
      <Link to="/runners">Registered runners</Link>
    </Empty>
  );
}

function RunnerFacts({ runner }: { runner: Runner }) {
  return (
    <Section title="Properties">
      <Facts>
        <Fact name="In hand">
          <Slots runner={runner} />
        </Fact>
        <Fact name="Host">{runner.hostname}</Fact>
        <Fact name="Executor profile">{runner.executor_profile}</Fact>
        <Fact name="Project directory">{runner.project_dir}</Fact>
        <Fact name="Tags">{runner.tags.join(", ") || "–"}</Fact>
        <Fact name="Takes">
          {runner.require_matching_tags ? "only runs that demand one of its tags" : "any matching run"}
        </Fact>
        <Fact name="Registered">
          <Time at={runner.registered_at} />
        </Fact>
        <Fact name="Last heartbeat">
          <Time at={runner.last_heartbeat} />
        </Fact>
      </Facts>
      <Value name="Executor" value={runner.executor} />
    </Section>
  );
}
