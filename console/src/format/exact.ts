/** Number that a JavaScript number cannot hold, as it was written. */
export class ExactNumber {
  constructor(readonly text: string) {}
}

type Reviver = (key: string, value: unknown, context?: { source?: string }) => unknown;

/** Parse JSON; numbers that would be rounded become ExactNumber, where the browser tells how they were written. */
export function parseExact(text: string): unknown {
  const reviver: Reviver = (_key, value, context) =>
    typeof value === "number" && context?.source !== undefined && isRounded(value, context.source)
      ? new ExactNumber(context.source)
      : value;
  return JSON.parse(text, reviver as (key: string, value: unknown) => unknown);
}

function isRounded(value: number, source: string): boolean {
  if (/^-?\d+$/.test(source)) {
    return !Number.isSafeInteger(value);
  }
  return String(value) !== source && significant(String(value)) !== significant(source);
}

/** Return the digits and the exponent of a number, the same for `1.50`, `1.5` and `15e-1`. */
function significant(text: string): string {
  const found = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(text);
  if (!found) {
    return text;
  }
  const [, sign, whole = "", fraction = "", exponent = "0"] = found;
  const digits = (whole + fraction).replace(/^0+/, "");
  const kept = digits.replace(/0+$/, "");
  return kept ? `${sign}${kept}e${Number(exponent) - fraction.length + digits.length - kept.length}` : "0";
}

/** Return JSON text with two blanks per level; an ExactNumber as it was written. */
export function formatExact(value: unknown, indent = ""): string {
  if (value instanceof ExactNumber) {
    return value.text;
  }
  const deeper = `${indent}  `;
  if (Array.isArray(value)) {
    return value.length
      ? `[\n${value.map((item) => deeper + formatExact(item, deeper)).join(",\n")}\n${indent}]`
      : "[]";
  }
  if (value !== null && typeof value === "object") {
    const lines = Object.entries(value).map(
      ([key, item]) => `${deeper}${JSON.stringify(key)}: ${formatExact(item, deeper)}`,
    );
    return lines.length ? `{\n${lines.join(",\n")}\n${indent}}` : "{}";
  }
  return JSON.stringify(value) ?? "null";
}
