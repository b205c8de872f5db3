/** Doing what a person asked for, and saying in words what went wrong. */

import { toast } from "./announce.js";
import { MediaProblem } from "./devices.js";
import { errorWords, mediaWords } from "./messages.js";
import { store } from "./state.js";

/**
 * Runs `run`; an error becomes a toast.
 *
 * @param {() => Promise<unknown> | unknown} run
 */
export async function attempt(run) {
  try {
    await run();
  } catch (error) {
    const words = error instanceof MediaProblem ? mediaWords(error.code) : errorWords(error);
    toast(words.title, words.detail, { tone: "bad" });
  }
  store.touch();
}
