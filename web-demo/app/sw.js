/**
 * Keeps the page for the next visit, so that it is there at once and without a network, too.
 *
 * `/version.json` names the version and its files. A version is fetched as a whole into a cache of its own and becomes
 * the current one at the next start of the page: files of two versions never meet in one page.
 */

const PREFIX = "offhook-";

self.addEventListener("install", (event) => {
  event.waitUntil(fetchNewest().then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  event.waitUntil(self.clients.claim());
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== "GET" || url.origin !== location.origin) return;
  if (request.mode === "navigate") {
    if (url.pathname !== "/") return;
    event.respondWith(openPage());
    event.waitUntil(fetchNewest().catch(() => {}));
  } else if (url.pathname.startsWith("/app/") || url.pathname.startsWith("/client/")) {
    event.respondWith(fromCache(request));
  }
});

/** The page itself: from the newest complete version, whose elders are removed now. */
async function openPage() {
  const names = await versions();
  const newest = names.at(-1);
  await Promise.all(names.slice(0, -1).map((name) => caches.delete(name)));
  const page = newest && (await (await caches.open(newest)).match("/"));
  return page ?? fetch("/");
}

/** @param {Request} request */
async function fromCache(request) {
  const [name] = await versions();
  const found = name && (await (await caches.open(name)).match(request, { ignoreSearch: true }));
  return found ?? fetch(request);
}

/** Fetches the version the server has now, unless it is here already. */
async function fetchNewest() {
  const answer = await fetch("/version.json", { cache: "no-store" });
  if (!answer.ok) return;
  const { version, files } = await answer.json();
  const names = await versions();
  if (names.some((name) => name.endsWith(`-${version}`))) return;

  // The time in front keeps the names in order of arrival.
  const name = `${PREFIX}${String(Date.now()).padStart(15, "0")}-${version}`;
  const cache = await caches.open(`loading-${version}`);
  const paths = new Set(["/", ...files.map((file) => new URL(file, location.origin).pathname)]);
  await Promise.all([...paths].map(async (path) => cache.put(path, await fetchWhole(path))));
  const complete = await caches.open(name);
  for (const request of await cache.keys()) await complete.put(request, await cache.match(request));
  await caches.delete(`loading-${version}`);
}

/** @param {string} path */
async function fetchWhole(path) {
  const answer = await fetch(path, { cache: "reload" });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer;
}

/** The complete versions, oldest first. */
async function versions() {
  return (await caches.keys()).filter((name) => name.startsWith(PREFIX)).sort();
}
