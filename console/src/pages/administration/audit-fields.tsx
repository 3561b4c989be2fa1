import { getRouteApi } from "@tanstack/react-router";
import { type FormEvent, useId } from "react";
import { Button } from "react-aria-components";
import { AUDIT_FILTERS, type AuditFilters } from "../../api/administration";
import { buttonClass, quietClass } from "../../design/parts";
import { useZone } from "../../design/preferences";
import { formatFull } from "../../format/times";
import { momentOf, nameOf } from "../../format/zones";
import styles from "./administration.module.css";

const route = getRouteApi("/audit");

// Offered, not required: later versions record others.
const ACTS = [
  "key_created",
  "key_revoked",
  "run_stopped",
  "run_ended",
  "session_stopped",
  "session_ended",
  "session_deleted",
  "run_held",
  "run_released",
  "hold_set",
  "hold_removed",
  "runner_deregistered",
  "epoch_rotated",
  "history_imported",
  "registry_entry_created",
  "registry_entry_changed",
  "registry_entry_deleted",
];
const TEXTS = [
  ["by", "By", "key:crd_… or subject:…"],
  ["act", "Act", "key created"],
  ["target", "On", "an id"],
] as const;

/** Filters of the audit log; they stand in the address, times there in UTC and here in the zone of the page. */
export function AuditFields({ filters }: { filters: AuditFilters }) {
  const navigate = route.useNavigate();
  const zone = useZone();
  const acts = useId();
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const given = new FormData(event.currentTarget);
    const search = Object.fromEntries(
      AUDIT_FILTERS.flatMap((name) => {
        const text = String(given.get(name) ?? "").trim();
        const value = givenAs(name, text, zone);
        return value ? [[name, value]] : [];
      }),
    );
    void navigate({ search });
  };
  return (
    <form className={styles.filters} onSubmit={submit} aria-label="Filters">
      {TEXTS.map(([name, label, example]) => (
        <label key={name}>
          {label}
          <input
            name={name}
            defaultValue={name === "act" ? filters.act?.replaceAll("_", " ") : filters[name]}
            placeholder={example}
            {...(name === "act" && { list: acts })}
            autoComplete="off"
            spellCheck={false}
          />
        </label>
      ))}
      <datalist id={acts}>
        {ACTS.map((act) => (
          <option key={act} value={act.replaceAll("_", " ")} />
        ))}
      </datalist>
      {(["since", "until"] as const).map((name) => (
        <label key={name}>
          {name === "since" ? "From" : "Until"} ({nameOf(zone)})
          <input type="datetime-local" name={name} defaultValue={clockOf(filters[name], zone)} key={zone} />
        </label>
      ))}
      <Button type="submit" className={buttonClass}>
        Filter
      </Button>
      {Object.keys(filters).length > 0 && (
        <Button className={quietClass} onPress={() => void navigate({ search: {} })}>
          Clear the filters
        </Button>
      )}
    </form>
  );
}

function givenAs(name: (typeof AUDIT_FILTERS)[number], text: string, zone: string): string {
  if (name === "since" || name === "until") {
    const at = momentOf(text, zone);
    return Number.isNaN(at) ? "" : new Date(at).toISOString();
  }
  return name === "act" ? text.toLowerCase().replaceAll(" ", "_") : text;
}

function clockOf(time: string | undefined, zone: string): string {
  return time ? formatFull(time, zone).slice(0, 16).replace(" ", "T") : "";
}
