import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { getRouteApi, Link } from "@tanstack/react-router";
import { Button } from "react-aria-components";
import { ApiError } from "../../api/client";
import { type Fire, fireList, nextTimes, oneSchedule, type Schedule } from "../../api/schedules";
import {
  buttonClass,
  Copy,
  Empty,
  Fact,
  Facts,
  Loading,
  Notice,
  pageClass,
  Section,
  Status,
  titleClass,
} from "../../design/parts";
import { Table } from "../../design/table";
import { Time } from "../../design/time";
import { Value } from "../../design/value";
import { RunLink } from "../run/run-facts";
import { ScheduleActions } from "./schedule-actions";
import { Outcome } from "./schedules-page";
import { timesOf } from "./times";

const route = getRouteApi("/schedules/$scheduleId");

export function SchedulePage() {
  const { scheduleId } = route.useParams();
  const found = useQuery(oneSchedule(scheduleId));
  if (found.error instanceof ApiError && found.error.status === 404) {
    return (
      <Empty isPage title="There is no such schedule">
        <Link to="/schedules">All schedules</Link>
      </Empty>
    );
  }
  if (!found.data) {
    return found.isError ? <Notice error={found.error} /> : <Loading />;
  }
  const schedule = found.data;
  return (
    <div className={pageClass}>
      <div className={titleClass}>
        <h1>
          <code>{scheduleId}</code>
        </h1>
        <Copy text={scheduleId} label="Copy the id" />
        <Status of={schedule.state} />
        <ScheduleActions schedule={schedule} />
      </div>
      {schedule.pause_reason && <p data-pause-reason>Paused: {schedule.pause_reason}</p>}
      <ScheduleFacts schedule={schedule} />
      <NextTimes id={scheduleId} />
      <Fires id={scheduleId} />
      <Section title="Run">
        <Value name="Submission" value={schedule.run} />
      </Section>
    </div>
  );
}

function ScheduleFacts({ schedule }: { schedule: Schedule }) {
  const { within_seconds: within, most } = schedule.catch_up;
  return (
    <Section title="Properties">
      <Facts>
        <Fact name="Times">{timesOf(schedule)}</Fact>
        <Fact name="Zone">{schedule.timezone}</Fact>
        <Fact name="Next">{schedule.next_fire_at ? <Time at={schedule.next_fire_at} /> : "–"}</Fact>
        <Fact name="Overlap">{schedule.overlap}</Fact>
        <Fact name="After an outage">{`the newest ${most ?? 0}, up to ${within ?? 0} s old`}</Fact>
        <Fact name="Jitter">{schedule.jitter_seconds ? `up to ${schedule.jitter_seconds} s` : "–"}</Fact>
        <Fact name="Fired">
          {schedule.most_fires === null ? schedule.fired : `${schedule.fired} of ${schedule.most_fires}`}
        </Fact>
        <Fact name="Failed in a row">
          {schedule.pause_after_failures === null
            ? schedule.failures
            : `${schedule.failures}; pauses after ${schedule.pause_after_failures}`}
        </Fact>
        <Fact name="Owner">{schedule.owner ?? "–"}</Fact>
        <Fact name="Version">
          {schedule.version}, <Time at={schedule.updated_at} />
        </Fact>
        <Fact name="Note">{schedule.note || "–"}</Fact>
      </Facts>
      <Value name="Times" value={schedule.spec} />
    </Section>
  );
}

function NextTimes({ id }: { id: string }) {
  const next = useQuery(nextTimes(id));
  return (
    <Section title="Next times">
      {next.isError && <Notice error={next.error} />}
      {next.data && next.data.times.length === 0 && <p>No time is left.</p>}
      {next.data && next.data.times.length > 0 && (
        <Table label="Times to come" heads={["Time", next.data.timezone, "Change of the clock"]}>
          {next.data.times.map((time) => (
            <tr key={time.fire_at} data-next={time.fire_at}>
              <td>
                <Time at={time.fire_at} />
              </td>
              <td>{time.local}</td>
              <td>{time.note ?? ""}</td>
            </tr>
          ))}
        </Table>
      )}
    </Section>
  );
}

function Fires({ id }: { id: string }) {
  const list = useInfiniteQuery(fireList(id));
  const fires = list.data?.pages.flatMap((page) => page.fires) ?? [];
  return (
    <Section title="Decisions">
      {list.isError && <Notice error={list.error} />}
      {list.data && fires.length === 0 && <p>No time has come yet.</p>}
      {fires.length > 0 && (
        <Table label="Decided times" heads={["Time", "Kind", "Outcome", "Run", "Reason", "Decided"]}>
          {fires.map((fire) => (
            <FireRow key={`${fire.fire_at} ${fire.kind}`} fire={fire} />
          ))}
        </Table>
      )}
      {list.hasNextPage && (
        <Button className={buttonClass} onPress={() => void list.fetchNextPage()} isDisabled={list.isFetchingNextPage}>
          Show more
        </Button>
      )}
    </Section>
  );
}

function FireRow({ fire }: { fire: Fire }) {
  return (
    <tr data-fire={fire.fire_at}>
      <td>
        <Time at={fire.fire_at} />
      </td>
      <td>{fire.kind}</td>
      <td>
        {fire.outcome} {fire.run_id && <Outcome fire={fire} />}
      </td>
      <td>{fire.run_id && <RunLink id={fire.run_id} />}</td>
      <td>{fire.reason}</td>
      <td>
        <Time at={fire.decided_at} />
      </td>
    </tr>
  );
}
