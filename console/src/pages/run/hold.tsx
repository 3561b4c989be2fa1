import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Button } from "react-aria-components";
import type { Run } from "../../api/client";
import { UNFINISHED } from "../../api/filters";
import { holdRun, OF_RUN, releaseRun } from "../../api/holds";
import { whoAmI, whyRun } from "../../api/queries";
import { Confirm } from "../../design/confirm";
import { buttonClass } from "../../design/parts";
import styles from "./run.module.css";

const LONGEST_NOTE = 200;

/** Hold a run, or release it; nothing for one that has ended. */
export function HoldButton({ run }: { run: Run }) {
  const me = useQuery(whoAmI).data;
  if (!UNFINISHED.includes(run.status) || !me || me.role === "runner") {
    return null;
  }
  return <Asking run={run} />;
}

function Asking({ run }: { run: Run }) {
  const [asked, setAsked] = useState(false);
  const why = useQuery(whyRun(run.run_id)).data;
  const isHeld = why?.reasons.some((reason) => reason.code === "held" && isOwn(reason.detail)) ?? false;
  const close = () => setAsked(false);
  return (
    <>
      <Button className={buttonClass} onPress={() => setAsked(true)}>
        {isHeld ? "Release" : "Hold…"}
      </Button>
      {asked && (isHeld ? <Release id={run.run_id} close={close} /> : <Hold id={run.run_id} close={close} />)}
    </>
  );
}

function isOwn(detail: Record<string, unknown>): boolean {
  return typeof detail.hold === "string" && detail.hold.startsWith(OF_RUN);
}

function Hold({ id, close }: { id: string; close: () => void }) {
  const [note, setNote] = useState("");
  return (
    <Confirm title="Hold this run?" action="Hold it" close={close} run={() => holdRun(id, note.trim())}>
      <p>No runner gets it until someone releases it. If a runner has it already, it goes on.</p>
      <label className={styles.note}>
        Note, for others who wonder (optional)
        <input value={note} maxLength={LONGEST_NOTE} onChange={(event) => setNote(event.target.value)} />
      </label>
    </Confirm>
  );
}

function Release({ id, close }: { id: string; close: () => void }) {
  return (
    <Confirm title="Release this run?" action="Release it" close={close} run={() => releaseRun(id)}>
      <p>Runners get it again at once, unless a hold of several runs applies to it.</p>
    </Confirm>
  );
}
