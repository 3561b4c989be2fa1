import { useQuery } from "@tanstack/react-query";
import { Link, Outlet, useRouter } from "@tanstack/react-router";
import { useEffect, useState } from "react";
import type { Me } from "../api/client";
import { whoAmI } from "../api/queries";
import { Notice } from "../design/parts";
import { HealthLine } from "./health-line";
import { Help } from "./help";
import { onShortcuts } from "./keyboard";
import { Search } from "./search";
import styles from "./shell.module.css";
import { SignIn } from "./sign-in";
import { Tools } from "./tools";

const PAGES = [
  { to: "/", name: "Overview", roles: ["admin", "user", "runner"] },
  { to: "/runs", name: "Runs", roles: ["admin", "user", "runner"] },
  { to: "/sessions", name: "Sessions", roles: ["admin", "user", "runner"] },
  { to: "/schedules", name: "Schedules", roles: ["admin", "user"] },
  { to: "/runners", name: "Runners", roles: ["admin", "runner"] },
  { to: "/agents", name: "Agents", roles: ["admin", "user", "runner"] },
  { to: "/webhooks", name: "Webhooks", roles: ["admin", "user"] },
  { to: "/audit", name: "Audit", roles: ["admin"] },
  { to: "/keys", name: "Keys", roles: ["admin"] },
] as const;

export function Shell() {
  const [help, setHelp] = useState(false);
  const router = useRouter();
  const me = useQuery(whoAmI);
  useEffect(() => onShortcuts({ help: () => setHelp(true), go: (to) => void router.navigate({ to }) }), [router]);
  return (
    <div className={styles.shell}>
      <a className={styles.skip} href="#content">
        Skip to the content
      </a>
      <header className={styles.bar}>
        <Link to="/" className={styles.name ?? ""}>
          Coordinator
        </Link>
        <Pages me={me.data} />
        <Search />
        <Tools showHelp={() => setHelp(true)} />
      </header>
      <HealthLine />
      <main id="content" tabIndex={-1} className={styles.content}>
        {me.data === undefined && me.isError ? <Notice error={me.error} /> : me.data === null ? <SignIn /> : <Outlet />}
      </main>
      {help && <Help close={() => setHelp(false)} />}
    </div>
  );
}

/** Lead to the pages that the role of this page may read; to those of every role until it is known. */
function Pages({ me }: { me: Me | null | undefined }) {
  const role = me?.role ?? "user";
  return (
    <nav className={styles.pages} aria-label="Pages">
      {PAGES.filter(({ roles }) => (roles as readonly string[]).includes(role)).map((page) => (
        <Link
          key={page.to}
          to={page.to}
          activeOptions={{ exact: page.to === "/", includeSearch: false }}
          activeProps={{ "aria-current": "page" }}
        >
          {page.name}
        </Link>
      ))}
    </nav>
  );
}
