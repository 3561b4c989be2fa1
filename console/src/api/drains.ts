import { type Runner, sendText } from "./client";
import { queryClient, runnerList } from "./queries";

/** Give a runner no new run until it is undrained; those in hand go on. */
export async function drain(runner: string, reason: string): Promise<void> {
  await sendText<Runner>("POST", pathOf(runner), JSON.stringify(reason ? { reason } : {}));
  await queryClient.invalidateQueries({ queryKey: runnerList.queryKey });
}

export async function undrain(runner: string): Promise<void> {
  await sendText<Runner>("DELETE", pathOf(runner));
  await queryClient.invalidateQueries({ queryKey: runnerList.queryKey });
}

function pathOf(runner: string): string {
  return `runners/${encodeURIComponent(runner)}/drain`;
}
