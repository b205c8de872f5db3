// How long the main threads of pages are busy without a pause, by Chromium's own trace.

/** Begins to watch the tasks of all pages of `browser`, as Playwright has it; `page` is one of them. */
export async function traceTasks(browser, page) {
  await browser.startTracing(page, { categories: ['toplevel', '__metadata'] });
}

/**
 * Ends what `traceTasks` began: how many tasks there were, and how many ms of the processor the longest took. The time of the clock
 * would say how busy the machine was.
 */
export async function tasksOf(browser) {
  const { traceEvents } = JSON.parse(await browser.stopTracing());
  const mains = new Set(traceEvents.filter(({ name, args }) => name === 'thread_name' && args.name === 'CrRendererMain').map(({ pid, tid }) => `${pid} ${tid}`));
  const tasks = traceEvents.filter(({ ph, name, pid, tid, tdur }) => ph === 'X' && /RunTask$/.test(name) && tdur !== undefined && mains.has(`${pid} ${tid}`));
  return { count: tasks.length, longest: Math.max(...tasks.map(({ tdur }) => tdur / 1000)) };
}
