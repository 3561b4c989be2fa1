import { useQuery } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { type KeyboardEvent, useRef, useState } from "react";
import { Button } from "react-aria-components";
import { newKey, replay, runText } from "../../api/replays";
import { Sheet } from "../../design/confirm";
import { accentClass, buttonClass, Loading, Notice } from "../../design/parts";
import { changesOf, editableOf } from "../../format/changes";
import styles from "./replay.module.css";

/** Ask for the changes of a replay and submit it; then show the new run. */
export function Replay({ id, close }: { id: string; close: () => void }) {
  const run = useQuery(runText(id));
  return (
    <Sheet title="Replay this run" close={close} wide>
      <p>
        A new run in a new session, with what this one was submitted with. What you change here replaces it; a member
        that you take out, or set to <code>null</code>, is left out.
      </p>
      {run.isPending && <Loading />}
      {run.isError && <Notice error={run.error} />}
      {run.data !== undefined && <Editor id={id} original={editableOf(run.data)} close={close} />}
    </Sheet>
  );
}

function Editor({ id, original, close }: { id: string; original: string; close: () => void }) {
  const [text, setText] = useState(original);
  const [error, setError] = useState<unknown>(null);
  const [busy, setBusy] = useState(false);
  const sent = useRef({ text: "", key: "" });
  const area = useRef<HTMLTextAreaElement>(null);
  const navigate = useNavigate();
  const changes = changesOf(original, text);
  const fault = "says" in changes ? changes : null;
  const submit = async () => {
    if ("says" in changes) {
      area.current?.focus();
      area.current?.setSelectionRange(changes.offset, changes.offset + 1);
      return;
    }
    // A second try of the same text is the same run, whatever became of the answer to the first.
    if (sent.current.text !== changes.text) {
      sent.current = { text: changes.text, key: newKey() };
    }
    setBusy(true);
    setError(null);
    try {
      const made = await replay(id, changes.text, sent.current.key);
      close();
      await navigate({ to: "/runs/$runId", params: { runId: made.run_id } });
    } catch (fault) {
      setError(fault);
      setBusy(false);
    }
  };
  const press = (event: KeyboardEvent) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      void submit();
    }
  };
  return (
    <>
      <textarea
        ref={area}
        className={styles.editor}
        aria-label="Fields of the new run, as JSON"
        aria-invalid={fault !== null}
        aria-describedby="replay-state"
        rows={Math.min(18, Math.max(8, original.split("\n").length + 1))}
        spellCheck={false}
        autoComplete="off"
        value={text}
        onChange={(event) => setText(event.target.value)}
        onKeyDown={press}
        // biome-ignore lint/a11y/noAutofocus: the dialog is there to edit
        autoFocus
      />
      <p id="replay-state" role="status" className={fault ? styles.fault : styles.state}>
        {fault
          ? `Line ${fault.line}, column ${fault.column}: ${fault.says}.`
          : "names" in changes && changes.names.length > 0
            ? `Changed: ${changes.names.join(", ")}.`
            : "Nothing is changed: the run is repeated as it was."}
      </p>
      {error !== null && <Notice error={error} />}
      <div className={styles.actions}>
        {text !== original && (
          <Button className={buttonClass} onPress={() => setText(original)}>
            Undo the changes
          </Button>
        )}
        <Button className={buttonClass} onPress={close}>
          Cancel
        </Button>
        <Button className={accentClass} onPress={() => void submit()} isDisabled={busy}>
          {fault ? "Show the fault" : "Replay"}
        </Button>
      </div>
    </>
  );
}
