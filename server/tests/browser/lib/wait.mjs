// Waiting for what must become true, instead of sleeping for as long as it usually takes.

import { setTimeout as pause } from 'node:timers/promises';

/** How long anything may take on a small machine that others use as well. */
export const PATIENCE_MS = Number(process.env.PATIENCE_MS ?? 60_000);

/** How often a probe looks again. */
const INTERVAL_MS = 100;

/**
 * Calls `probe` until it returns something truthy, and returns that.
 *
 * Fails after `timeout` ms with `what` and the last thing `probe` had to say: its value, or the error it threw.
 */
export async function eventually(what, probe, { timeout = PATIENCE_MS, interval = INTERVAL_MS } = {}) {
  const deadline = performance.now() + timeout;
  let last;
  for (;;) {
    try {
      last = await probe();
      if (last) return last;
    } catch (error) {
      last = error;
    }
    if (performance.now() > deadline) break;
    await pause(interval);
  }
  const seen = last instanceof Error ? last.message : JSON.stringify(last);
  throw new Error(`after ${timeout} ms still not so: ${what} (last seen: ${seen})`);
}
