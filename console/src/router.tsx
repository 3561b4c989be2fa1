import { createRootRoute, createRoute, createRouter } from "@tanstack/react-router";
import { type AuditFilters, auditFiltersFrom } from "./api/administration";
import { type RunsSearch, searchFrom } from "./api/filters";
import type { SessionFilters } from "./api/queries";
import { type RegistrySearch, registrySearchFrom } from "./api/registries";
import { consolePath } from "./location";
import { AuditPage } from "./pages/administration/audit-page";
import { KeysPage } from "./pages/administration/keys-page";
import { NotFound } from "./pages/not-found";
import { OverviewPage } from "./pages/overview/overview-page";
import { RegistriesPage } from "./pages/registries/registries-page";
import { DiffPage } from "./pages/run/diff-page";
import { RunPage } from "./pages/run/run-page";
import { RunnerPage } from "./pages/runners/runner-page";
import { RunnersPage } from "./pages/runners/runners-page";
import { FailuresPage } from "./pages/runs/failures-page";
import { RunsPage } from "./pages/runs/runs-page";
import { SchedulePage } from "./pages/schedules/schedule-page";
import { SchedulesPage } from "./pages/schedules/schedules-page";
import { SessionPage } from "./pages/sessions/session-page";
import { SessionsPage } from "./pages/sessions/sessions-page";
import { WebhookPage } from "./pages/webhooks/webhook-page";
import { WebhooksPage } from "./pages/webhooks/webhooks-page";
import { Shell } from "./shell/shell";

const root = createRootRoute({ component: Shell, notFoundComponent: NotFound });

const overview = createRoute({ getParentRoute: () => root, path: "/", component: OverviewPage });

export const runsRoute = createRoute({
  getParentRoute: () => root,
  path: "/runs",
  component: RunsPage,
  validateSearch: (search: Record<string, unknown>): RunsSearch => searchFrom(search),
});

export const runRoute = createRoute({ getParentRoute: () => root, path: "/runs/$runId", component: RunPage });

const diffRoute = createRoute({
  getParentRoute: () => root,
  path: "/runs/$runId/diff",
  component: DiffPage,
  validateSearch: (search: Record<string, unknown>): { with?: string } =>
    typeof search.with === "string" && search.with ? { with: search.with } : {},
});

export const sessionsRoute = createRoute({
  getParentRoute: () => root,
  path: "/sessions",
  component: SessionsPage,
  validateSearch: (search: Record<string, unknown>): SessionFilters => ({
    ...(typeof search.status === "string" ? { status: search.status } : {}),
    ...(typeof search.parent === "string" ? { parent: search.parent } : {}),
  }),
});

export const sessionRoute = createRoute({
  getParentRoute: () => root,
  path: "/sessions/$sessionId",
  component: SessionPage,
});

const schedules = createRoute({ getParentRoute: () => root, path: "/schedules", component: SchedulesPage });

export const scheduleRoute = createRoute({
  getParentRoute: () => root,
  path: "/schedules/$scheduleId",
  component: SchedulePage,
});

const runners = createRoute({ getParentRoute: () => root, path: "/runners", component: RunnersPage });

export const runnerRoute = createRoute({
  getParentRoute: () => root,
  path: "/runners/$runnerId",
  component: RunnerPage,
});

const registries = createRoute({
  getParentRoute: () => root,
  path: "/agents",
  component: RegistriesPage,
  validateSearch: (search: Record<string, unknown>): RegistrySearch => registrySearchFrom(search),
});

const webhooks = createRoute({ getParentRoute: () => root, path: "/webhooks", component: WebhooksPage });

export const webhookRoute = createRoute({
  getParentRoute: () => root,
  path: "/webhooks/$webhookId",
  component: WebhookPage,
});

const audit = createRoute({
  getParentRoute: () => root,
  path: "/audit",
  component: AuditPage,
  validateSearch: (search: Record<string, unknown>): AuditFilters => auditFiltersFrom(search),
});

const failures = createRoute({ getParentRoute: () => root, path: "/failures", component: FailuresPage });

const keys = createRoute({ getParentRoute: () => root, path: "/keys", component: KeysPage });

export const router = createRouter({
  routeTree: root.addChildren([
    overview,
    runsRoute,
    runRoute,
    diffRoute,
    failures,
    sessionsRoute,
    sessionRoute,
    schedules,
    scheduleRoute,
    runners,
    runnerRoute,
    registries,
    webhooks,
    webhookRoute,
    audit,
    keys,
  ]),
  basepath: consolePath,
  defaultPreload: false,
});

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}
