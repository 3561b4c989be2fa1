import { useRouter } from "@tanstack/react-router";
import { type FormEvent, useState } from "react";
import { Button } from "react-aria-components";
import type { RunFilters } from "../../api/filters";
import { Sheet } from "../../design/confirm";
import { buttonClass, Copy, Notice, quietClass } from "../../design/parts";
import styles from "./runs.module.css";
import { renamed, saved, useViews, type View, viewStore, without } from "./views";

/** Ask for the name of a new view; `name` is that in the link which was opened. */
export function SaveView({ filters, name, close }: { filters: RunFilters; name: string; close: () => void }) {
  const [text, setText] = useState(name);
  const [error, setError] = useState<unknown>(null);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    try {
      viewStore().set(saved(viewStore().get(), text, filters));
      close();
    } catch (fault) {
      setError(fault);
    }
  };
  return (
    <Sheet title="Save as view" close={close}>
      <form className={styles.viewForm} onSubmit={submit}>
        <label>
          Name
          <input value={text} onChange={(event) => setText(event.target.value)} maxLength={80} ref={focus} />
        </label>
        <p className={styles.count}>This browser keeps it. A view of the same name is replaced.</p>
        {error !== null && <Notice error={error} />}
        <div className={styles.actions}>
          <Button className={buttonClass} onPress={close}>
            Cancel
          </Button>
          <button type="submit" className={buttonClass}>
            Save
          </button>
        </div>
      </form>
    </Sheet>
  );
}

/** Lead a dialog to its field: who opens it wants to write. */
function focus(field: HTMLInputElement | null): void {
  field?.focus();
}

/** Rename, delete and share views, and choose the default one. */
export function ViewsDialog({ close }: { close: () => void }) {
  const { views, default: first } = useViews();
  const setDefault = (name: string | null) => viewStore().set({ ...viewStore().get(), default: name });
  return (
    <Sheet title="Views" close={close}>
      <label>
        <input type="radio" name="default" checked={first === null} onChange={() => setDefault(null)} /> Show all runs
        at first
      </label>
      <ul className={styles.views}>
        {views.map((view) => (
          <ViewLine key={view.name} view={view} isDefault={view.name === first} setDefault={setDefault} />
        ))}
      </ul>
      <div className={styles.actions}>
        <Button className={buttonClass} onPress={close} autoFocus>
          Close
        </Button>
      </div>
    </Sheet>
  );
}

interface Line {
  view: View;
  isDefault: boolean;
  setDefault: (name: string) => void;
}

function ViewLine({ view, isDefault, setDefault }: Line) {
  const router = useRouter();
  const [name, setName] = useState(view.name);
  const [error, setError] = useState<unknown>(null);
  const rename = () => {
    setError(null);
    if (name === view.name) {
      return;
    }
    try {
      viewStore().set(renamed(viewStore().get(), view.name, name));
    } catch (fault) {
      setError(fault);
    }
  };
  const { href } = router.buildLocation({ to: "/runs", search: { ...view.filters, view: view.name } });
  return (
    <li>
      <input
        type="radio"
        name="default"
        checked={isDefault}
        onChange={() => setDefault(view.name)}
        aria-label={`Show ${view.name} at first`}
      />
      <input
        value={name}
        onChange={(event) => setName(event.target.value)}
        onBlur={rename}
        onKeyDown={(event) => event.key === "Enter" && rename()}
        maxLength={80}
        aria-label={`Name of ${view.name}`}
      />
      <Copy text={new URL(href, location.href).href} label={`Copy the link of ${view.name}`} />
      <Button
        className={quietClass}
        aria-label={`Delete ${view.name}`}
        onPress={() => viewStore().set(without(viewStore().get(), view.name))}
      >
        Delete
      </Button>
      {error !== null && <Notice error={error} />}
    </li>
  );
}
