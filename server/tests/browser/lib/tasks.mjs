// How long the main threads of pages are busy without a pause, by Chromium's own trace.

const MARK = 'page of ';

/** Begins to watch the tasks of all pages of `browser`, as Playwright has it; `page` is one of them. */
export async function traceTasks(browser, page) {
  await browser.startTracing(page, { categories: ['toplevel', 'blink.user_timing', '__metadata'] });
}

/** Has the tasks of a page counted under this name, too, in the trace that is being made. */
export async function nameTasks(page, name) {
  await page.evaluate((mark) => performance.mark(mark), MARK + name);
}

/**
 * Ends what `traceTasks` began: how many tasks there were, how many ms of the processor the longest took, and the longest of each page
 * that was named. The time of the clock would say how busy the machine was.
 */
export async function tasksOf(browser) {
  const { traceEvents } = JSON.parse(await browser.stopTracing());
  const mains = new Set(traceEvents.filter(({ name, args }) => name === 'thread_name' && args.name === 'CrRendererMain').map(({ pid, tid }) => `${pid} ${tid}`));
  const tasks = traceEvents.filter(({ ph, name, pid, tid, tdur }) => ph === 'X' && /RunTask$/.test(name) && tdur !== undefined && mains.has(`${pid} ${tid}`));
  const longest = (some) => some.reduce((most, { tdur }) => Math.max(most, tdur / 1000), 0);
  const marks = traceEvents.filter(({ name }) => name.startsWith(MARK));
  const pages = new Map(marks.map(({ name, pid }) => [name.slice(MARK.length), longest(tasks.filter((task) => task.pid === pid))]));
  return { count: tasks.length, longest: longest(tasks), pages };
}
