import { infiniteQueryOptions, queryOptions } from "@tanstack/react-query";
import { accepted, api } from "./client";
import { queryClient } from "./queries";
import type { components } from "./schema";

export type Webhook = components["schemas"]["Webhook"];
export type Delivery = components["schemas"]["WebhookDelivery"];
export type DeliveryState = Delivery["state"];

export const DELIVERY_STATES = ["pending", "delivered", "failed"] as const;
// The feed tells nothing of messages: look again while some wait.
const LOOK_MILLISECONDS = 2000;
const MOST_SHOWN = 1000;

export const webhookList = queryOptions({
  queryKey: ["webhooks"],
  queryFn: async ({ signal }) => {
    const query = { limit: MOST_SHOWN };
    return accepted(await api.GET("/webhooks", { params: { query }, signal })).webhooks;
  },
  staleTime: 0,
});

export function webhookOf(id: string) {
  return queryOptions({
    queryKey: ["webhooks", id],
    queryFn: async ({ signal }) => {
      const path = { webhook_id: id };
      return accepted(await api.GET("/webhooks/{webhook_id}", { params: { path }, signal }));
    },
    staleTime: 0,
  });
}

export function deliveriesOf(id: string, state: DeliveryState | undefined) {
  return infiniteQueryOptions({
    queryKey: ["webhooks", id, "deliveries", state ?? ""],
    queryFn: async ({ pageParam, signal }) => {
      const path = { webhook_id: id };
      const query = { ...(state ? { state } : {}), ...(pageParam ? { cursor: pageParam } : {}) };
      return accepted(await api.GET("/webhooks/{webhook_id}/deliveries", { params: { path, query }, signal }));
    },
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.next_cursor ?? null,
    staleTime: 0,
    refetchInterval: ({ state: { data } }) =>
      data?.pages.some((page) => page.deliveries.some((each) => each.state === "pending")) ? LOOK_MILLISECONDS : false,
  });
}

/** Send a test message. */
export async function testWebhook(id: string): Promise<void> {
  accepted(await api.POST("/webhooks/{webhook_id}/test", { params: { path: { webhook_id: id } } }));
  await queryClient.invalidateQueries({ queryKey: ["webhooks", id] });
}

/** Send a message again; one that waits is sent now. */
export async function replayDelivery(id: string, event: string): Promise<void> {
  const path = { webhook_id: id, event_id: event };
  accepted(await api.POST("/webhooks/{webhook_id}/deliveries/{event_id}/replay", { params: { path } }));
  await queryClient.invalidateQueries({ queryKey: ["webhooks", id] });
}
