import { expect, test } from "vitest";
import { wordsOf } from "../src/format/health";

const answer = (status: number, body: object | null) => wordsOf({ status, body });

test("nothing is said while all is well, or while a process drains", () => {
  expect(answer(200, { status: "ready" })).toBeNull();
  expect(answer(503, { status: "draining" })).toBeNull();
});

test("each fault is said with what it means", () => {
  expect(answer(0, null)).toMatchObject({ isAway: true, says: "The coordinator does not answer" });
  expect(answer(502, null)).toMatchObject({ isAway: true, says: "A proxy answers 502 instead of the coordinator" });
  const postgres = answer(200, { status: "degraded", reason: "Postgres does not answer (reads, writes)" });
  expect(postgres).toMatchObject({ isAway: true, says: "Postgres does not answer (reads, writes)" });
  expect(postgres?.means).toContain("Nothing can be read or changed");
  const both = answer(200, {
    status: "degraded",
    reason: "Redis does not answer; no worker did dispatch, expire for 15 s",
  });
  expect(both?.isAway).toBe(false);
  expect(both?.means).toMatch(/^Nothing is lost.* Claims go on/);
  const behind = answer(503, { status: "starting", reason: "schema 0026, needs 0027: run coordinator migrate" });
  expect(behind?.says).toBe("The coordinator is starting: schema 0026, needs 0027: run coordinator migrate");
  expect(answer(200, { status: "degraded", reason: "something new" })).toMatchObject({ says: "something new" });
});
