import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Button } from "react-aria-components";
import type { Runner } from "../../api/client";
import { drain, undrain } from "../../api/drains";
import { whoAmI } from "../../api/queries";
import { Confirm } from "../../design/confirm";
import { buttonClass } from "../../design/parts";
import { Time } from "../../design/time";
import styles from "./runners.module.css";

const LONGEST_REASON = 200;

/** Drain a runner, or undrain it; to administrators. */
export function DrainButton({ runner }: { runner: Runner }) {
  const [asked, setAsked] = useState(false);
  const me = useQuery(whoAmI).data;
  if (me?.role !== "admin") {
    return null;
  }
  const isDraining = Boolean(runner.draining_since);
  const close = () => setAsked(false);
  return (
    <>
      <Button className={buttonClass} onPress={() => setAsked(true)}>
        {isDraining ? "Undrain" : "Drain…"}
      </Button>
      {asked && (isDraining ? <Undrain runner={runner} close={close} /> : <Drain runner={runner} close={close} />)}
    </>
  );
}

function Drain({ runner, close }: { runner: Runner; close: () => void }) {
  const [reason, setReason] = useState("");
  return (
    <Confirm
      title="Drain this runner?"
      action="Drain it"
      close={close}
      run={() => drain(runner.runner_id, reason.trim())}
    >
      <p>
        It gets no new run, also after it reconnects, until someone undrains it. Its runs in hand ({runner.runs_in_hand}
        ) go on. Runs that only it can take wait.
      </p>
      <label className={styles.reason}>
        Reason, for others who wonder (optional)
        <input value={reason} maxLength={LONGEST_REASON} onChange={(event) => setReason(event.target.value)} />
      </label>
    </Confirm>
  );
}

function Undrain({ runner, close }: { runner: Runner; close: () => void }) {
  return (
    <Confirm title="Undrain this runner?" action="Undrain it" close={close} run={() => undrain(runner.runner_id)}>
      <p>It gets runs again at once.</p>
    </Confirm>
  );
}

/** Say since when a runner drains, and why; nothing for one that does not. */
export function Draining({ runner }: { runner: Runner }) {
  if (!runner.draining_since) {
    return null;
  }
  return (
    <span className={styles.draining} data-draining>
      draining since <Time at={runner.draining_since} />
      {runner.drain_reason && `: ${runner.drain_reason}`}
    </span>
  );
}
