import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useState } from "react";
import { Button, ToggleButton } from "react-aria-components";
import { type Key, keyList, revokeKey } from "../../api/administration";
import type { Me } from "../../api/client";
import { whoAmI } from "../../api/queries";
import { Confirm } from "../../design/confirm";
import {
  accentClass,
  Copy,
  chipClass,
  dangerClass,
  Empty,
  Loading,
  Notice,
  pageClass,
  titleClass,
} from "../../design/parts";
import { Table } from "../../design/table";
import { Time } from "../../design/time";
import { KeyForm } from "./key-form";

const FIRST_KEY = "coordinator keys create --role admin";

export function KeysPage() {
  const me = useQuery(whoAmI).data;
  if (!me) {
    return <Loading />;
  }
  if (me.role !== "admin") {
    return (
      <Empty isPage title="Keys are shown to administrators">
        Ask one for a key of your own.
      </Empty>
    );
  }
  if (!me.auth) {
    return (
      <Empty isPage title="Authentication is off" command={FIRST_KEY}>
        Everyone who reaches this address is an administrator, and there is no key. The first one turns authentication
        on, so it is created from a shell, where no other client can take over; others can then be created here.
      </Empty>
    );
  }
  return <Keys me={me} />;
}

function Keys({ me }: { me: Me }) {
  const keys = useQuery(keyList);
  const [creates, setCreates] = useState(false);
  const [all, setAll] = useState(false);
  const good = keys.data?.filter((key) => key.state === "good") ?? [];
  const ended = (keys.data?.length ?? 0) - good.length;
  const shown = all ? (keys.data ?? []) : good;
  return (
    <div className={pageClass}>
      <div className={titleClass}>
        <h1>Keys</h1>
        <Button className={accentClass} onPress={() => setCreates(true)}>
          Create a key
        </Button>
        {ended > 0 && (
          <ToggleButton className={chipClass} isSelected={all} onChange={setAll}>
            {`Revoked and expired (${ended})`}
          </ToggleButton>
        )}
      </div>
      {creates && <KeyForm close={() => setCreates(false)} />}
      {keys.isPending && <Loading />}
      {keys.isError && <Notice error={keys.error} />}
      {keys.data && shown.length === 0 && (
        <Empty title="No key is in use">
          Callers have tokens of the issuer. Create a key for a program or a runner that cannot get one.
        </Empty>
      )}
      {shown.length > 0 && <KeyTable keys={[...shown].reverse()} me={me} />}
    </div>
  );
}

function KeyTable({ keys, me }: { keys: Key[]; me: Me }) {
  return (
    <Table
      label="Keys"
      heads={["Key", "State", "Role", "Owner", "Name", "Created", "Last used", "Ends", "Acts", "Change"]}
    >
      {keys.map((key) => (
        <tr key={key.key_id} data-key={key.key_id}>
          <td>
            <code>{key.key_id}</code> <Copy text={key.key_id} label={`Copy ${key.key_id}`} />
          </td>
          <td>
            {key.state}
            {isOwn(key, me) && ", yours now"}
          </td>
          <td>{key.role}</td>
          <td>{key.owner ?? "–"}</td>
          <td title={key.name ?? undefined}>{key.name ?? "–"}</td>
          <td>
            <Time at={key.created_at} />
          </td>
          <td>{key.last_used_at ? <Time at={key.last_used_at} /> : "never"}</td>
          <td>
            <Ends of={key} />
          </td>
          <td>
            <Link to="/audit" search={{ target: key.key_id }}>
              on it
            </Link>{" "}
            <Link to="/audit" search={{ by: `key:${key.key_id}` }}>
              by it
            </Link>
          </td>
          <td>{key.state === "good" && <Revoke of={key} isOwn={isOwn(key, me)} />}</td>
        </tr>
      ))}
    </Table>
  );
}

function isOwn(key: Key, me: Me): boolean {
  return me.credential === `key:${key.key_id}`;
}

function Ends({ of: key }: { of: Key }) {
  if (key.revoked_at) {
    return (
      <>
        revoked <Time at={key.revoked_at} />
      </>
    );
  }
  return key.expires_at ? <Time at={key.expires_at} /> : "never";
}

function Revoke({ of: key, isOwn }: { of: Key; isOwn: boolean }) {
  const [asked, setAsked] = useState(false);
  return (
    <>
      <Button className={dangerClass} aria-label={`Revoke ${key.key_id}`} onPress={() => setAsked(true)}>
        Revoke
      </Button>
      {asked && (
        <Confirm
          title="Revoke this key?"
          action="Revoke it for ever"
          close={() => setAsked(false)}
          run={() => revokeKey(key.key_id)}
        >
          <p>
            <code>{key.key_id}</code> {key.name && `(${key.name}) `}is refused everywhere within 5 s, and so is all that
            uses it: its {key.role === "runner" ? "runners" : "programs and people"} need another one.
          </p>
          {isOwn && (
            <p>
              <b>It is the key that you signed in with: this page signs out.</b>
            </p>
          )}
        </Confirm>
      )}
    </>
  );
}
