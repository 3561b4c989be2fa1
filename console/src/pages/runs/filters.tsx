import { getRouteApi } from "@tanstack/react-router";
import { Button, ToggleButton } from "react-aria-components";
import { isFiltered, MOMENTS, type RunFilters, STATUSES, TEXTS } from "../../api/filters";
import { chipClass } from "../../design/parts";
import { useZone } from "../../design/preferences";
import { formatTime } from "../../format/times";
import styles from "./runs.module.css";

const route = getRouteApi("/runs");
const PERIODS = { "": "Any time", "1h": "Last hour", "24h": "Last 24 hours", "7d": "Last 7 days" } as const;
const WORDS = {
  created_after: "created since",
  created_before: "created before",
  ended_after: "ended since",
  ended_before: "ended before",
} as const;

/** Filters of the address: statuses to toggle, a period, the others to remove. The search box adds them. */
export function Filters({ filters }: { filters: RunFilters }) {
  const navigate = route.useNavigate();
  // The default view is for addresses without filters: say that none are wanted.
  const change = (search: RunFilters) => void navigate({ search: isFiltered(search) ? search : { all: true } });
  const statuses = filters.status ?? [];
  const toggle = (status: string, on: boolean) => {
    const { status: _, ...rest } = filters;
    const kept = STATUSES.filter((each) => (each === status ? on : statuses.includes(each)));
    change(kept.length ? { ...rest, status: kept } : rest);
  };
  return (
    <div className={styles.filters} role="group" aria-label="Filters">
      {STATUSES.map((status) => (
        <ToggleButton
          key={status}
          className={chipClass}
          isSelected={statuses.includes(status)}
          onChange={(on) => toggle(status, on)}
        >
          {status}
        </ToggleButton>
      ))}
      <Period filters={filters} change={change} />
      <Others filters={filters} change={change} />
    </div>
  );
}

interface Changed {
  filters: RunFilters;
  change: (filters: RunFilters) => void;
}

function Period({ filters, change }: Changed) {
  const { created_after: since = "", ...rest } = filters;
  if (!(since in PERIODS)) {
    return null;
  }
  return (
    <select
      className={styles.period}
      aria-label="Created"
      value={since}
      onChange={({ target }) => change(target.value ? { ...rest, created_after: target.value } : rest)}
    >
      {Object.entries(PERIODS).map(([value, name]) => (
        <option key={value} value={value}>
          {name}
        </option>
      ))}
    </select>
  );
}

function Others({ filters, change }: Changed) {
  const zone = useZone();
  const without = (name: keyof RunFilters) => {
    const { [name]: _, ...rest } = filters;
    change(rest);
  };
  return (
    <>
      {TEXTS.map((name) => {
        const value = filters[name];
        return value && <Removable key={name} text={`${name}: ${value}`} remove={() => without(name)} />;
      })}
      {MOMENTS.filter((name) => name !== "created_after" || !((filters[name] ?? "") in PERIODS)).map((name) => {
        const value = filters[name];
        const shown = value && (/^\d+[mhd]$/.test(value) ? `${value} ago` : formatTime(value, zone));
        return value && <Removable key={name} text={`${WORDS[name]} ${shown}`} remove={() => without(name)} />;
      })}
      {filters.not_status?.map((status) => (
        <Removable key={status} text={`not ${status}`} remove={() => change(less(filters, "not_status", status))} />
      ))}
      {filters.label?.map((label) => (
        <Removable key={label} text={label} remove={() => change(less(filters, "label", label))} />
      ))}
      {filters.order && <Removable text="last ended first" remove={() => without("order")} />}
    </>
  );
}

function less(filters: RunFilters, name: "label" | "not_status", gone: string): RunFilters {
  const { [name]: values, ...rest } = filters;
  const kept = values?.filter((each) => each !== gone) ?? [];
  return kept.length ? { ...rest, [name]: kept } : rest;
}

function Removable({ text, remove }: { text: string; remove: () => void }) {
  return (
    <Button className={chipClass} data-selected aria-label={`Remove the filter ${text}`} onPress={remove}>
      {text} ✕
    </Button>
  );
}
