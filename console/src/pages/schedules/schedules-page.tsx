import { useInfiniteQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { Button } from "react-aria-components";
import { type Fire, type ScheduleSummary, scheduleList } from "../../api/schedules";
import { buttonClass, Empty, Loading, Notice, pageClass, Status } from "../../design/parts";
import { Table } from "../../design/table";
import { Time } from "../../design/time";
import { timesOf } from "./times";

export function SchedulesPage() {
  const list = useInfiniteQuery(scheduleList());
  const schedules = list.data?.pages.flatMap((page) => page.schedules) ?? [];
  return (
    <div className={pageClass}>
      <h1>Schedules</h1>
      {list.isPending && <Loading />}
      {list.isError && <Notice error={list.error} />}
      {list.data && schedules.length === 0 && (
        <Empty title="No schedule" command="coordinator schedules put NAME FILE">
          A schedule submits a run at stated times.
        </Empty>
      )}
      {schedules.length > 0 && <ScheduleTable schedules={schedules} />}
      {list.hasNextPage && (
        <Button className={buttonClass} onPress={() => void list.fetchNextPage()} isDisabled={list.isFetchingNextPage}>
          Show more
        </Button>
      )}
    </div>
  );
}

function ScheduleTable({ schedules }: { schedules: ScheduleSummary[] }) {
  return (
    <Table label="Schedules" heads={["State", "Schedule", "Times", "Zone", "Next", "Last", "Owner"]}>
      {schedules.map((schedule) => (
        <tr key={schedule.schedule_id} data-schedule={schedule.schedule_id}>
          <td>
            <Status of={schedule.state} />
          </td>
          <td>
            <Link to="/schedules/$scheduleId" params={{ scheduleId: schedule.schedule_id }}>
              {schedule.schedule_id}
            </Link>
          </td>
          <td>{timesOf(schedule)}</td>
          <td>{schedule.timezone}</td>
          <td>{schedule.next_fire_at ? <Time at={schedule.next_fire_at} /> : "–"}</td>
          <td>{schedule.newest_fire ? <Outcome fire={schedule.newest_fire} /> : "–"}</td>
          <td>{schedule.owner ?? "–"}</td>
        </tr>
      ))}
    </Table>
  );
}

/** Say what was decided on a time and, if a run came of it, what became of the run. */
export function Outcome({ fire }: { fire: Fire }) {
  const times = fire.times > 1 ? ` (${fire.times} times)` : "";
  return (
    <span title={fire.reason ?? undefined} data-outcome={fire.outcome}>
      {fire.run_id && fire.run_status ? <Status of={fire.run_status} /> : fire.outcome}
      {times}
    </span>
  );
}
