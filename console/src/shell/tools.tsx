import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Button } from "react-aria-components";
import { whoAmI } from "../api/queries";
import { signOut } from "../api/session";
import { quietClass } from "../design/parts";
import { changeTheme, useTheme, useZone } from "../design/preferences";
import { nameOf } from "../format/zones";
import { useStreamState } from "../live/feed";
import styles from "./shell.module.css";
import { useIsOutdated } from "./version";
import { shortZone, Zones } from "./zones";

function Account() {
  const me = useQuery(whoAmI);
  if (!me.data?.auth) {
    return null;
  }
  return (
    <Button className={quietClass} onPress={() => void signOut()}>
      {me.data.owner ?? me.data.role} · sign out
    </Button>
  );
}

const STATES = {
  connecting: "connecting",
  live: "live",
  reconnecting: "reconnecting",
  paused: "paused",
  "signed-out": "signed out",
} as const;
const THEMES = { system: "auto", light: "light", dark: "dark" } as const;

export function Tools({ showHelp }: { showHelp: () => void }) {
  const state = useStreamState();
  const zone = useZone();
  const theme = useTheme();
  const isOutdated = useIsOutdated();
  const [choosesZone, setChoosesZone] = useState(false);
  return (
    <div className={styles.tools}>
      <span className={styles.state} data-state={state} role="status">
        {STATES[state]}
      </span>
      {isOutdated && (
        <Button className={quietClass} onPress={() => location.reload()}>
          new version: load it
        </Button>
      )}
      <Account />
      <Button
        className={quietClass}
        aria-label={`Times are ${zone === "local" ? `local (${nameOf(zone)})` : zone}; change`}
        onPress={() => setChoosesZone(true)}
      >
        {shortZone(zone)}
      </Button>
      <Button className={quietClass} aria-label={`Colours: ${THEMES[theme]}; change`} onPress={changeTheme}>
        {THEMES[theme]}
      </Button>
      <Button className={quietClass} aria-label="Keys and search" onPress={showHelp}>
        ?
      </Button>
      {choosesZone && <Zones close={() => setChoosesZone(false)} />}
    </div>
  );
}
