import { useEffect } from "react";
import { queryClient } from "../api/queries";
import { feed } from "./feed";
import { Pace } from "./pace";

const AUDIT_MILLISECONDS = 500;

/** Keep the audit log up to date with the feed while a page shows it; for administrators, to whom alone acts are sent. */
export function useLiveAudit(): void {
  useEffect(() => {
    const read = () => queryClient.invalidateQueries({ queryKey: ["audit"] }, { cancelRefetch: false });
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
  }, []);
}
