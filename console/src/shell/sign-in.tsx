import { useQuery } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { signIn, signInAddress, signInMethods } from "../api/session";
import { buttonClass, Notice } from "../design/parts";
import styles from "./shell.module.css";

export function SignIn() {
  const [key, setKey] = useState("");
  const [error, setError] = useState<unknown>(null);
  const [busy, setBusy] = useState(false);
  const methods = useQuery(signInMethods);
  const issuer = methods.data?.oidc?.issuer;
  const submit = async (event: FormEvent) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      await signIn(key.trim());
    } catch (fault) {
      setError(fault);
      setBusy(false);
    }
  };
  return (
    <form className={styles.signIn} onSubmit={(event) => void submit(event)} aria-label="Sign in">
      <h1>Sign in</h1>
      {methods.data?.error && error === null && <Notice error={methods.data.error} />}
      {issuer && (
        <a className={`${buttonClass} ${styles.provider}`} href={signInAddress()}>
          Sign in with {hostOf(issuer)}
        </a>
      )}
      <label>
        API key
        <input
          type="password"
          value={key}
          onChange={(event) => setKey(event.target.value)}
          autoComplete="current-password"
          required
        />
      </label>
      {error !== null && <Notice error={error} />}
      <button type="submit" className={buttonClass} disabled={busy}>
        Sign in
      </button>
      <p>
        <code>coordinator keys create --role admin</code> makes one. <code>scripts/up --auth</code> keeps its own in{" "}
        <code>.coordinator/admin.token</code>.
      </p>
    </form>
  );
}

function hostOf(issuer: string): string {
  return URL.canParse(issuer) ? new URL(issuer).host : issuer;
}
