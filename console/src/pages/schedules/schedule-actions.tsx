import { useState } from "react";
import { Button } from "react-aria-components";
import { pauseSchedule, resumeSchedule, type Schedule, triggerSchedule } from "../../api/schedules";
import { Confirm } from "../../design/confirm";
import { buttonClass } from "../../design/parts";
import styles from "../runners/runners.module.css";

type Asked = "pause" | "resume" | "trigger" | null;

const LONGEST_NOTE = 1000;

/** Pause, resume and trigger a schedule. */
export function ScheduleActions({ schedule }: { schedule: Schedule }) {
  const [asked, setAsked] = useState<Asked>(null);
  const close = () => setAsked(null);
  return (
    <>
      <Button className={buttonClass} onPress={() => setAsked(schedule.paused ? "resume" : "pause")}>
        {schedule.paused ? "Resume…" : "Pause…"}
      </Button>
      <Button className={buttonClass} onPress={() => setAsked("trigger")}>
        Trigger…
      </Button>
      {asked === "pause" && <Pause id={schedule.schedule_id} close={close} />}
      {asked === "resume" && <Resume id={schedule.schedule_id} close={close} />}
      {asked === "trigger" && <Trigger schedule={schedule} close={close} />}
    </>
  );
}

function Pause({ id, close }: { id: string; close: () => void }) {
  const [note, setNote] = useState("");
  return (
    <Confirm title="Pause this schedule?" action="Pause it" close={close} run={() => pauseSchedule(id, note.trim())}>
      <p>Times of the pause run only if they are backfilled. Runs that are there go on.</p>
      <label className={styles.reason}>
        Reason, for others who wonder (optional)
        <input value={note} maxLength={LONGEST_NOTE} onChange={(event) => setNote(event.target.value)} />
      </label>
    </Confirm>
  );
}

function Resume({ id, close }: { id: string; close: () => void }) {
  return (
    <Confirm title="Resume this schedule?" action="Resume it" close={close} run={() => resumeSchedule(id)}>
      <p>Its times count from now on.</p>
    </Confirm>
  );
}

function Trigger({ schedule, close }: { schedule: Schedule; close: () => void }) {
  const [key] = useState(() => `${Date.now()}-${Math.random()}`);
  const [always, setAlways] = useState(false);
  const run = async () => {
    const fire = await triggerSchedule(schedule.schedule_id, always ? "allow" : null, key);
    if (fire.outcome !== "submitted" && fire.outcome !== "buffered") {
      throw new Error(`It was ${fire.outcome}: ${fire.reason ?? "no reason is known"}`);
    }
  };
  return (
    <Confirm title="Submit its run now?" action="Submit it" close={close} run={run}>
      <p>
        While another run of the schedule is unfinished its policy decides: <code>{schedule.overlap}</code>.
      </p>
      <label>
        <input type="checkbox" checked={always} onChange={(event) => setAlways(event.target.checked)} /> Submit it in
        any case
      </label>
    </Confirm>
  );
}
