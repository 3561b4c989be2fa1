import { useMemo, useState } from "react";
import { Button, ListBox, ListBoxItem } from "react-aria-components";
import { Sheet } from "../design/confirm";
import { buttonClass } from "../design/parts";
import { useZone, zonePreference } from "../design/preferences";
import { useNow } from "../design/time";
import { describeTime } from "../format/times";
import { allZones, formatOffset, nameOf, offsetAt } from "../format/zones";
import styles from "./shell.module.css";

const MOST_SHOWN = 60;

/** Choose the zone of all times on the pages: that of the system, UTC, or any that the browser knows. */
export function Zones({ close }: { close: () => void }) {
  const [words, setWords] = useState("");
  const zone = useZone();
  const now = useNow();
  const names = useMemo(() => ["local", ...allZones()], []);
  const found = names.filter((name) => matches(name, words));
  return (
    <Sheet title="Time zone" close={close}>
      <p>
        Times are in <b>{nameOf(zone)}</b>: now{" "}
        <time>{describeTime(new Date(now).toISOString(), zone).slice(0, 19)}</time>
      </p>
      <input
        type="search"
        className={styles.field}
        aria-label="Search time zones"
        placeholder="Search, for example Berlin or +10:30"
        value={words}
        onChange={(event) => setWords(event.target.value)}
        // biome-ignore lint/a11y/noAutofocus: the dialog is there to search
        autoFocus
      />
      <ListBox
        aria-label="Time zones"
        className={styles.zones ?? ""}
        selectionMode="single"
        disallowEmptySelection
        selectedKeys={[zone]}
        onSelectionChange={(keys) => {
          const [key] = keys === "all" ? [] : keys;
          if (key !== undefined && key !== zone) {
            zonePreference.set(String(key));
            close();
          }
        }}
        renderEmptyState={() => "No zone has this in its name."}
      >
        {found.slice(0, MOST_SHOWN).map((name) => (
          <ListBoxItem key={name} id={name} textValue={labelOf(name)} className={styles.zone ?? ""}>
            <span>{labelOf(name)}</span> <small>{formatOffset(offsetAt(now, name))}</small>
          </ListBoxItem>
        ))}
      </ListBox>
      <p role="status">{found.length > MOST_SHOWN ? `${found.length - MOST_SHOWN} more: search for one.` : ""}</p>
      <Button className={buttonClass} onPress={close}>
        Close
      </Button>
    </Sheet>
  );
}

/** Return the words for the header of the page: short where the name is long. */
export function shortZone(zone: string): string {
  return zone.split("/").at(-1)?.replaceAll("_", " ") ?? zone;
}

function labelOf(name: string): string {
  return name === "local" ? `This system (${nameOf(name)})` : name;
}

function matches(name: string, words: string): boolean {
  const text = `${labelOf(name)} ${formatOffset(offsetAt(Date.now(), name))}`.toLowerCase().replaceAll("_", " ");
  return words
    .toLowerCase()
    .split(/\s+/)
    .every((word) => text.includes(word));
}
