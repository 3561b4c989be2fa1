import type { KeyboardEvent } from "react";
import { Button } from "react-aria-components";
import { quietClass } from "../../design/parts";

interface Searched {
  words: string;
  setWords: (words: string) => void;
  /** Keys of the lines that hold the words, in order. */
  matches: ReadonlySet<number | undefined>;
  current: number | null;
  step: (by: 1 | -1) => void;
}

export function LogSearch({ words, setWords, matches, current, step }: Searched) {
  const press = (event: KeyboardEvent) => {
    if (event.key === "Enter" && matches.size > 0) {
      event.preventDefault();
      step(event.shiftKey ? -1 : 1);
    }
  };
  const place = [...matches].indexOf(current ?? Number.NaN) + 1;
  return (
    <>
      <input
        type="search"
        aria-label="Search the log"
        placeholder="Search the log"
        value={words}
        onChange={(event) => setWords(event.target.value)}
        onKeyDown={press}
        spellCheck={false}
      />
      {words && (
        <>
          <span role="status">{`${place > 0 ? `${place} of ` : ""}${matches.size.toLocaleString("en")} found`}</span>
          <Button className={quietClass} aria-label="Match before" isDisabled={!matches.size} onPress={() => step(-1)}>
            ↑
          </Button>
          <Button className={quietClass} aria-label="Next match" isDisabled={!matches.size} onPress={() => step(1)}>
            ↓
          </Button>
        </>
      )}
    </>
  );
}
