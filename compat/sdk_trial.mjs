// Make the calls of the SDK at the given coordinator and print their outcomes as JSON: node sdk_trial.mjs MODULE URL
const [module, baseUrl] = process.argv.slice(2);
const { CoordinatorClient } = await import(module);
const client = new CoordinatorClient({ baseUrl: `${baseUrl}/`, getToken: async () => null });

async function outcome(act) {
  try {
    return await act();
  } catch (error) {
    return { error: error.message };
  }
}

const outcomes = {};
outcomes["startRun and waitForResult"] = await outcome(async () => {
  const run = await client.startRun({ agentName: "test", parameters: { stdout: "by SDK", json: true } });
  const ids = [typeof run.runId, typeof run.sessionId];
  return { ids, result: await run.waitForResult() };
});
outcomes["startRun without a prompt"] = await outcome(() => client.startRun({ parameters: {} }));
outcomes["resumeSession of an unknown session"] = await outcome(() =>
  client.resumeSession("ses_000000000000", { prompt: "more" }),
);
outcomes["stop and waitForResult"] = await outcome(async () => {
  const run = await client.startRun({ parameters: { prompt: "to be stopped" }, projectDir: "/" });
  // The first turn takes less; the process then waits for another.
  await new Promise((done) => setTimeout(done, 4000));
  await run.stop();
  return (await run.waitForResult()).status;
});
console.log(JSON.stringify(outcomes));
process.exit(0);
