// What the programs that a story started take of the processor, by process and by thread, as Linux counts it.

import { readdir, readFile } from 'node:fs/promises';

/** How Linux counts time: `getconf CLK_TCK`, which is the same everywhere. */
const TICKS_A_SECOND = 100;

/** So many threads of a process are named. */
const THREADS_NAMED = 4;

/**
 * Begins to measure everything this process has started. The function it gives returns what was taken since: `total` in percent of
 * one core, and `processes`, the most expensive first, each with its `name`, its share in `percent` and its busiest `threads`.
 */
export async function measureProcessor() {
  const [before, began] = [await readThreads(), performance.now()];
  return async () => {
    const [after, seconds] = [await readThreads(), (performance.now() - began) / 1000];
    const processes = new Map();
    for (const [id, { pid, name, thread, ticks }] of after) {
      // What began in between has taken all of its time since.
      const percent = (100 * (ticks - (before.get(id)?.ticks ?? 0))) / TICKS_A_SECOND / seconds;
      const process = processes.get(pid) ?? { name, percent: 0, threads: new Map() };
      processes.set(pid, process);
      process.percent += percent;
      process.threads.set(thread, (process.threads.get(thread) ?? 0) + percent);
    }
    const all = [...processes.values()].sort((a, b) => b.percent - a.percent);
    return {
      total: all.reduce((sum, { percent }) => sum + percent, 0),
      processes: all.map(({ threads, ...process }) => ({
        ...process,
        threads: [...threads].sort(([, a], [, b]) => b - a).slice(0, THREADS_NAMED),
      })),
    };
  };
}

/** Every thread of every process below this one, by `pid/tid`. */
async function readThreads() {
  const parents = new Map();
  for (const pid of await numbersIn('/proc')) {
    const stat = await readStat(`/proc/${pid}`);
    if (stat) parents.set(pid, stat.parent);
  }
  const isOurs = (pid) => pid === String(process.pid) || (parents.has(pid) && isOurs(parents.get(pid)));

  const threads = new Map();
  for (const pid of parents.keys()) {
    if (pid === String(process.pid) || !isOurs(pid)) continue;
    const name = await nameOf(pid);
    for (const tid of await numbersIn(`/proc/${pid}/task`)) {
      const stat = await readStat(`/proc/${pid}/task/${tid}`);
      if (stat) threads.set(`${pid}/${tid}`, { pid, name, thread: stat.name.replace(/[\s#/:-]*\d+$/, ''), ticks: stat.ticks });
    }
  }
  return threads;
}

async function numbersIn(folder) {
  // It may have ended meanwhile.
  const names = await readdir(folder).catch(() => []);
  return names.filter((name) => /^\d+$/.test(name));
}

/** proc(5): the name is in brackets and may hold anything; behind it the state, the parent, and as 12th and 13th the times. */
async function readStat(folder) {
  const text = await readFile(`${folder}/stat`, 'utf8').catch(() => null);
  if (text === null) return null;
  const end = text.lastIndexOf(')');
  const fields = text.slice(end + 2).split(' ');
  return { name: text.slice(text.indexOf('(') + 1, end), parent: fields[1], ticks: Number(fields[11]) + Number(fields[12]) };
}

/** `chromium renderer`, `firefox-esr tab`, `offhook`: the program, and what kind of its processes it is. */
async function nameOf(pid) {
  const words = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split(/[\0 ]/);
  const kind = words.find((word) => word.startsWith('--type='))?.slice('--type='.length);
  const service = words.find((word) => word.startsWith('--utility-sub-type='))?.replace(/.*[.=]/, '');
  const tab = words.includes('-contentproc') ? words.filter((word) => /^[a-z]+$/.test(word)).at(-1) : undefined;
  return [words[0].replace(/.*\//, ''), service ?? kind ?? tab].filter(Boolean).join(' ');
}
