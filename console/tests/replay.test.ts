import { describe, expect, test } from "vitest";
import { changesOf, editableOf } from "../src/format/changes";
import { comparableMember, compareLines, shortened } from "../src/format/compare";
import { canonical, isFault, type Json, pretty, readJson } from "../src/format/json";

const RUN = `{"run_id":"run_1","agent_name":null,"priority":0,"labels":{},"project_dir":null,"max_attempts":1,
"parameters":{"id":12345678901234567890,"share":1.50,"name":"\\u00e4"},"demands":{"hostname":null,"tags":["gpu"]}}`;

function read(text: string): Json {
  const found = readJson(text);
  if (isFault(found)) {
    throw new Error(found.says);
  }
  return found;
}

describe("an edited run", () => {
  const original = editableOf(RUN);

  test("offers what a submission has, with every number as it was written", () => {
    expect(original).toContain('"id": 12345678901234567890');
    expect(original).toContain('"share": 1.50');
    expect(original).toContain('"additional_demands": {\n    "tags": [\n      "gpu"\n    ]\n  }');
    expect(original).not.toContain("hostname");
    expect(original).not.toContain("run_id");
  });

  test("sends only the members that differ, others than blanks, escapes and order", () => {
    expect(changesOf(original, original)).toEqual({ names: [], text: "{}" });
    const spaced = original.replaceAll("\n", "\n ").replace("\\u00e4", "ä");
    expect(changesOf(original, spaced)).toEqual({ names: [], text: "{}" });
    const larger = original
      .replace("12345678901234567890", "12345678901234567891")
      .replace('"priority": 0', '"priority": 5');
    expect(changesOf(original, larger)).toEqual({
      names: ["parameters", "priority"],
      text: `{"parameters":{\n    "id": 12345678901234567891,\n    "share": 1.50,\n    "name": "\\u00e4"\n  },"priority":5}`,
    });
  });

  test("sends null for what was taken out, and what was added", () => {
    const without = original
      .replace(/"additional_demands": \{[^}]*\},/, "")
      .replace("{", '{"run_timeout_seconds": null,');
    expect(changesOf(original, without)).toEqual({
      names: ["run_timeout_seconds", "additional_demands"],
      text: '{"run_timeout_seconds":null,"additional_demands":null}',
    });
    expect(changesOf(original, original.replace('"agent_name": null,', ""))).toEqual({ names: [], text: "{}" });
  });

  test.each([
    ['{\n  "priority": 5,\n}', 3, 1, "a name in quotes is expected"],
    ['{\n  "priority" 5\n}', 2, 14, "a colon is expected"],
    ['{\n  "a": 1\n  "b": 2\n}', 3, 3, "a comma is expected"],
    ['{"a": tru}', 1, 7, 'this is no value: text needs quotes (")'],
    ['{"a": "b\n"}', 1, 7, 'this text has no closing quote (")'],
    ['{"a": 1, // no\n "b": 2}', 1, 10, "comments are not allowed"],
    ['{"a": 1, "a": 2}', 1, 10, 'the name "a" stands twice in one object'],
    ['{"a": "\\x"}', 1, 7, "no escape begins like this: \\\\ is a backslash"],
    ["[]", 1, 1, "an object { … } with the fields of a run is expected"],
  ])("tells the place of the fault in %j", (text, line, column, says) => {
    expect(changesOf(original, text)).toMatchObject({ line, column, says });
  });

  test("is never taken for JSON when it is none", () => {
    for (const text of [
      "",
      "{",
      "{'a': 1}",
      '{"a": 01}',
      '{"a": NaN}',
      '{"a": 1e}',
      "{} {}",
      '{"a": "\\u12"}',
      "nul",
    ]) {
      expect(changesOf(original, text), text).toHaveProperty("says");
    }
    expect(changesOf(original, `{"parameters": ${"[".repeat(50_000)}`)).toHaveProperty("says");
  });
});

test("equal values have one canonical text", () => {
  expect(canonical(read('{"b": [1, {}], "a": "\\u0041"}'))).toBe(canonical(read('{"a":"A","b":[1,{}]}')));
  expect(canonical(read("1.0"))).not.toBe(canonical(read("1")));
  expect(pretty(read('{"b":1,"a":{"d":[],"c":{}}}'), true)).toBe(
    '{\n  "a": {\n    "c": {},\n    "d": []\n  },\n  "b": 1\n}',
  );
});

test("texts are compared line by line, with the middle of equal stretches left out", () => {
  const same = Array.from({ length: 20 }, (_, place) => `line ${place}`);
  const stretches = compareLines(["first", ...same, "old"].join("\n"), [...same, "new"].join("\n")) ?? [];
  expect(stretches.map(({ sign, lines }) => [sign, lines.length])).toEqual([
    ["-", 1],
    [" ", 20],
    ["-", 1],
    ["+", 1],
  ]);
  expect(shortened(stretches).map(({ lines, hidden }) => [lines.length, hidden])).toEqual([
    [1, 0],
    [3, 14],
    [3, 0],
    [1, 0],
    [1, 0],
  ]);
  expect(compareLines("", "a")).toEqual([{ sign: "+", lines: ["a"] }]);
});

test("members are compared exactly, text as it is and objects in one order", () => {
  expect(comparableMember('{"a":{"z":1,"b":12345678901234567890}}', "a")).toBe(
    '{\n  "b": 12345678901234567890,\n  "z": 1\n}',
  );
  expect(comparableMember('{"a":"one\\ntwo"}', "a")).toBe("one\ntwo");
  expect([comparableMember('{"a":null}', "a"), comparableMember("{}", "a"), comparableMember(null, "a")]).toEqual([
    "",
    "",
    "",
  ]);
});
