import { useSyncExternalStore } from "react";
import { areSame, filtersFrom, type RunFilters } from "../../api/filters";

export interface View {
  name: string;
  filters: RunFilters;
}

/** Views of this browser; `default` names the one that the page shows when its address has no filters. */
export interface Views {
  views: readonly View[];
  default: string | null;
}

const KEY = "coordinator.views";
const MOST_VIEWS = 50;
const LONGEST_NAME = 80;
const NO_VIEWS: Views = { views: [], default: null };

/** Return the views that a stored text holds; what is no view is left out. */
export function viewsFrom(text: string | null): Views {
  let stored: unknown;
  try {
    stored = JSON.parse(text ?? "null");
  } catch {
    return NO_VIEWS;
  }
  const { views, default: first } = (stored ?? {}) as { views?: unknown; default?: unknown };
  const known = new Map<string, View>();
  for (const each of Array.isArray(views) ? views : []) {
    const { name, filters } = (each ?? {}) as { name?: unknown; filters?: unknown };
    const wanted = nameOf(typeof name === "string" ? name : "");
    if (wanted && known.size < MOST_VIEWS && filters && typeof filters === "object") {
      known.set(wanted, { name: wanted, filters: filtersFrom(filters as Record<string, unknown>) });
    }
  }
  return { views: [...known.values()], default: typeof first === "string" && known.has(first) ? first : null };
}

export function nameOf(text: string): string {
  return text.trim().replace(/\s+/g, " ").slice(0, LONGEST_NAME);
}

/** Save a view under its name, in place of the one that has it. Throws for no name and for too many views. */
export function saved({ views, ...rest }: Views, name: string, filters: RunFilters): Views {
  const wanted = nameOf(name);
  if (!wanted) {
    throw new Error("Give the view a name.");
  }
  const isKnown = views.some((view) => view.name === wanted);
  if (!isKnown && views.length >= MOST_VIEWS) {
    throw new Error(`Delete one of the ${MOST_VIEWS} views first.`);
  }
  const view = { name: wanted, filters };
  return { ...rest, views: isKnown ? views.map((each) => (each.name === wanted ? view : each)) : [...views, view] };
}

/** Give a view another name. Throws for no name and for that of another view. */
export function renamed({ views, default: first }: Views, name: string, to: string): Views {
  const wanted = nameOf(to);
  if (!wanted) {
    throw new Error("Give the view a name.");
  }
  if (wanted !== name && views.some((view) => view.name === wanted)) {
    throw new Error(`There is a view "${wanted}" already.`);
  }
  return {
    views: views.map((view) => (view.name === name ? { ...view, name: wanted } : view)),
    default: first === name ? wanted : first,
  };
}

export function without({ views, default: first }: Views, name: string): Views {
  return { views: views.filter((view) => view.name !== name), default: first === name ? null : first };
}

/** Return the view with these filters. */
export function viewOf({ views }: Views, filters: RunFilters): View | undefined {
  return views.find((view) => areSame(view.filters, filters));
}

/** Views that are kept in this browser, the same in all its pages; in memory only where it keeps nothing. */
class ViewStore {
  private readonly listeners = new Set<() => void>();
  private views = viewsFrom(this.read());

  constructor() {
    addEventListener("storage", (event) => {
      if (event.key === KEY || event.key === null) {
        this.views = viewsFrom(this.read());
        this.tell();
      }
    });
  }

  readonly get = (): Views => this.views;

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  set(views: Views): void {
    this.views = views;
    try {
      localStorage.setItem(KEY, JSON.stringify(views));
    } catch {
      // A browser may forbid it.
    }
    this.tell();
  }

  private read(): string | null {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null;
    }
  }

  private tell(): void {
    for (const listener of this.listeners) {
      listener();
    }
  }
}

let store: ViewStore | undefined;

export function viewStore(): ViewStore {
  store ??= new ViewStore();
  return store;
}

export function useViews(): Views {
  const kept = viewStore();
  return useSyncExternalStore(kept.subscribe, kept.get);
}
