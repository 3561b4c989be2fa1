import { type FormEvent, useState } from "react";
import { Button } from "react-aria-components";
import { createKey, type NewKey } from "../../api/administration";
import { Sheet } from "../../design/confirm";
import { accentClass, buttonClass, Copy, Notice } from "../../design/parts";
import styles from "./administration.module.css";

const ROLES = [
  ["user", "user: submits runs and sees its own"],
  ["runner", "runner: claims and reports runs"],
  ["admin", "admin: everything"],
] as const;
const UNITS = { hours: 3600, days: 86_400, weeks: 604_800 } as const;
const MOST_SECONDS = 10 * 366 * 86_400;

/** Create a key; its secret is shown once, here. */
export function KeyForm({ close }: { close: () => void }) {
  const [secret, setSecret] = useState<string | null>(null);
  if (secret !== null) {
    return (
      <Sheet title="The key, shown this once" close={close} isDismissable={false}>
        <p>Copy it now: no one can read it again. Whoever has it acts as the role and owner that you gave it.</p>
        <p className={styles.secret}>
          <code data-secret>{secret}</code> <Copy text={secret} label="Copy the key" />
        </p>
        <div className={styles.actions}>
          <Button className={accentClass} onPress={close}>
            I have kept it
          </Button>
        </div>
      </Sheet>
    );
  }
  return (
    <Sheet title="Create a key" close={close}>
      <Fields created={setSecret} close={close} />
    </Sheet>
  );
}

function Fields({ created, close }: { created: (secret: string) => void; close: () => void }) {
  const [error, setError] = useState<unknown>(null);
  const [busy, setBusy] = useState(false);
  const [role, setRole] = useState<NewKey["role"]>("user");
  const submit = async (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const given = new FormData(event.currentTarget);
    setBusy(true);
    setError(null);
    try {
      created((await createKey(keyOf(role, given))).key);
    } catch (fault) {
      setError(fault);
      setBusy(false);
    }
  };
  return (
    <form className={styles.form} onSubmit={(event) => void submit(event)} aria-label="Create a key">
      <label>
        Role
        <select value={role} onChange={(event) => setRole(event.target.value as NewKey["role"])}>
          {ROLES.map(([value, words]) => (
            <option key={value} value={value}>
              {words}
            </option>
          ))}
        </select>
      </label>
      <label>
        {role === "admin" ? "Owner (optional)" : "Owner, for whom it acts"}
        <input name="owner" required={role !== "admin"} maxLength={255} autoComplete="off" spellCheck={false} />
      </label>
      <label>
        Name (optional), what it is for
        <input name="name" maxLength={255} autoComplete="off" />
      </label>
      <label>
        Ends after; empty for never
        <span className={styles.life}>
          <input name="life" type="number" min={1} max={87_840} step={1} inputMode="numeric" />
          <select name="unit" aria-label="Unit of its life" defaultValue="days">
            {Object.keys(UNITS).map((unit) => (
              <option key={unit}>{unit}</option>
            ))}
          </select>
        </span>
      </label>
      {error !== null && <Notice error={error} />}
      <div className={styles.actions}>
        <Button className={buttonClass} onPress={close}>
          Cancel
        </Button>
        <Button type="submit" className={accentClass} isDisabled={busy}>
          Create it
        </Button>
      </div>
    </form>
  );
}

function keyOf(role: NewKey["role"], given: FormData): NewKey {
  const text = (name: string) => String(given.get(name) ?? "").trim();
  const life = Number(text("life"));
  const seconds = Math.min(life * (UNITS[text("unit") as keyof typeof UNITS] ?? UNITS.days), MOST_SECONDS);
  return {
    role,
    owner: text("owner") || null,
    name: text("name") || null,
    expires_in_seconds: life > 0 ? seconds : null,
  };
}
