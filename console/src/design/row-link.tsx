import { useRouter } from "@tanstack/react-router";
import type { MouseEvent, ReactNode } from "react";
import { consolePath } from "../location";

/** Link of a row to a page by an id. A long list makes hundreds a second while it is scrolled: this one costs nothing. */
export function RowLink({
  to,
  id,
  className = "",
  children,
}: {
  to: "runs" | "sessions" | "runners";
  id: string;
  className?: string | undefined;
  children: ReactNode;
}) {
  const router = useRouter();
  const path = `/${to}/${encodeURIComponent(id)}`;
  const follow = (event: MouseEvent) => {
    if (event.button === 0 && !(event.metaKey || event.ctrlKey || event.shiftKey || event.altKey)) {
      event.preventDefault();
      router.history.push(consolePath + path);
    }
  };
  return (
    <a href={consolePath + path} className={className} title={id} onClick={follow}>
      {children}
    </a>
  );
}
