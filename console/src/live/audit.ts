import { useEffect } from "react";
import { queryClient } from "../api/queries";
import { feed } from "./feed";
import { Pace } from "./pace";

const AUDIT_MILLISECONDS = 500;

/** Read again what acts change, the audit log or the registries; for administrators, to whom alone acts are sent. */
export function useLiveAudit(changed: "audit" | "registries" = "audit"): void {
  useEffect(() => {
    const read = () => queryClient.invalidateQueries({ queryKey: [changed] }, { cancelRefetch: false });
    const pace = new Pace(() => void read(), AUDIT_MILLISECONDS);
    const release = feed.include("audit");
    const unsubscribe = feed.subscribe((events) => {
      if (events.some(({ type }) => type === "audit")) {
        pace.ask();
      }
    });
    return () => {
      pace.stop();
      unsubscribe();
      release();
    };
  }, [changed]);
}
