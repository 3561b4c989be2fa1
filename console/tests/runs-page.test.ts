import { expect, test } from "vitest";
import type { RunSummary } from "../src/api/client";
import { areSame, asQuery, filtersFrom, searchFrom } from "../src/api/filters";
import { destinationOf } from "../src/format/search";
import { chooseAll, chooseNone, move, NONE, tally, toggle, toggleRange } from "../src/pages/runs/chosen";
import { renamed, saved, viewOf, viewsFrom, without } from "../src/pages/runs/views";

const rows = ["a", "b", "c", "d", "e"].map(
  (id, place) => ({ run_id: id, status: place < 3 ? "running" : "failed", completed_at: null }) as RunSummary,
);
const idsOf = ({ ids }: { ids: ReadonlySet<string> }) => [...ids].sort().join("");

test("a range gets the state that its end would get, in both directions", () => {
  const one = toggle(NONE, "b");
  expect(idsOf(one)).toBe("b");
  const range = toggleRange(one, rows, "d");
  expect(idsOf(range)).toBe("bcd");
  expect(idsOf(toggleRange(range, rows, "c"))).toBe("b");
  expect(idsOf(toggleRange(toggle(NONE, "e"), rows, "c"))).toBe("cde");
  expect(idsOf(toggleRange(NONE, rows, "c"))).toBe("c");
  expect(idsOf(toggleRange(toggle(NONE, "gone"), rows, "b"))).toBe("bgone");
});

test("chosen runs stay chosen when rows come and go", () => {
  const chosen = chooseAll(toggle(NONE, "gone"), rows);
  expect(idsOf(chosen)).toBe("abcdegone");
  expect(tally(chosen, rows)).toEqual({ shown: 5, unfinished: 3, ended: 2 });
  expect(idsOf(chooseNone(chosen))).toBe("");
});

test("keys begin in view, stop at both ends, and leave the choice as it is", () => {
  const begun = move(toggle(NONE, "a"), rows, 1, 0);
  expect([begun.current, idsOf(begun)]).toEqual(["b", "a"]);
  expect(move(NONE, rows, 1, 3).current).toBe("d");
  expect(move({ ...NONE, current: "a" }, rows, -1, 0).current).toBe("a");
  expect(move({ ...NONE, current: "e" }, rows, 1, 0).current).toBe("e");
  expect(move(NONE, [], 1, 0).current).toBeNull();
});

test("an address with nonsense has no filters", () => {
  expect(filtersFrom({ status: ["failed", "nope"], label: ["a=b", "c"], agent: "", runner: 7, other: 1 })).toEqual({
    status: ["failed"],
    label: ["a=b"],
    runner: "7",
  });
  expect(filtersFrom({ created_after: "yesterday", ended_after: "24h", order: "created", q: "run_1" })).toEqual({
    ended_after: "24h",
    q: "run_1",
  });
  expect(searchFrom({ view: "mine", all: "true", status: "failed" })).toEqual({ view: "mine", status: ["failed"] });
});

test("durations count back from now", () => {
  const now = Date.parse("2026-11-30T12:00:00Z");
  const query = asQuery({ created_after: "24h", ended_before: "2026-11-30T11:00:00+01:00" }, now);
  expect([query.created_after, query.ended_before]).toEqual(["2026-11-29T12:00:00.000Z", "2026-11-30T10:00:00.000Z"]);
  expect(query.created_before).toBeUndefined();
});

test("the search box understands periods, exclusion and errors", () => {
  expect(destinationOf('since:24h ended:30m not:completed error:"no space" before:never')).toEqual({
    kind: "runs",
    filters: { created_after: "24h", ended_after: "30m", not_status: ["completed"], error: "no space" },
  });
});

test("views are saved, replaced, renamed and deleted by name; the default one follows", () => {
  const empty = viewsFrom(null);
  const one = saved(empty, "  Failed\n today ", { status: ["failed"], ended_after: "24h" });
  expect(one.views.map((view) => view.name)).toEqual(["Failed today"]);
  const two = { ...saved(one, "Mine", { agent: "a" }), default: "Mine" };
  expect(saved(two, "Mine", { agent: "b" }).views).toEqual([...one.views, { name: "Mine", filters: { agent: "b" } }]);
  expect(renamed(two, "Mine", "Ours").default).toBe("Ours");
  expect(() => renamed(two, "Mine", "Failed today")).toThrow("already");
  expect(() => saved(two, " ", {})).toThrow("name");
  expect(without(two, "Mine")).toEqual({ views: one.views, default: null });
  expect(viewOf(two, { ended_after: "24h", status: ["failed"] })?.name).toBe("Failed today");
  expect(areSame({ status: ["a", "b"] }, { status: ["b", "a"] })).toBe(true);
});

test("stored texts that are no views are left out", () => {
  for (const text of ["", "{", "7", "null", '{"views":7}', '{"views":[null,{"name":1},{"name":" "}],"default":"x"}']) {
    expect(viewsFrom(text)).toEqual({ views: [], default: null });
  }
  const text = '{"views":[{"name":"a","filters":{"status":["failed","nope"],"x":1}}],"default":"a"}';
  expect(viewsFrom(text)).toEqual({ views: [{ name: "a", filters: { status: ["failed"] } }], default: "a" });
});
