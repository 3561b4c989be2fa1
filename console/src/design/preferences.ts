import { useSyncExternalStore } from "react";
import { isZone, type Zone } from "../format/zones";

export type Theme = "system" | "light" | "dark";

/** Value that is kept in this browser; in memory only where it keeps nothing. */
class Preference<Value extends string> {
  private readonly listeners = new Set<() => void>();
  private value: Value;

  constructor(
    private readonly key: string,
    usual: Value,
    accepts: (kept: string) => boolean,
  ) {
    const kept = read(key);
    this.value = kept !== null && accepts(kept) ? (kept as Value) : usual;
  }

  readonly get = (): Value => this.value;

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  set(value: Value): void {
    this.value = value;
    try {
      localStorage.setItem(this.key, value);
    } catch {
      // A browser may forbid it.
    }
    for (const listener of this.listeners) {
      listener();
    }
  }
}

function read(key: string): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

const THEMES: readonly Theme[] = ["system", "light", "dark"];

export const zonePreference = new Preference<Zone>("coordinator.zone", "local", isZone);
export const themePreference = new Preference<Theme>("coordinator.theme", "system", (kept) =>
  (THEMES as readonly string[]).includes(kept),
);

export function changeTheme(): void {
  themePreference.set(THEMES[(THEMES.indexOf(themePreference.get()) + 1) % THEMES.length] ?? "system");
}

export function useZone(): Zone {
  return useSyncExternalStore(zonePreference.subscribe, zonePreference.get);
}

export function useTheme(): Theme {
  return useSyncExternalStore(themePreference.subscribe, themePreference.get);
}

/** Apply the theme to the document, now and when it changes. */
export function followTheme(): void {
  const apply = () => {
    document.documentElement.dataset.theme = themePreference.get();
  };
  apply();
  themePreference.subscribe(apply);
}
