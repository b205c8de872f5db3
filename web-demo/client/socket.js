// What a Session needs of the browser to reach the server.

/**
 * The part of a WebSocket that a Session needs; tests bring their own.
 * @typedef {object} Socket
 * @property {number} readyState
 * @property {((event: any) => void)|null} onopen
 * @property {((event: {data: any}) => void)|null} onmessage
 * @property {((event: {code: number, reason: string}) => void)|null} onclose
 * @property {(text: string) => void} send
 * @property {(code?: number, reason?: string) => void} close
 */

/** @param {string} url @returns {Socket} */
export function openSocket(url) {
  return /** @type {Socket} */ (new WebSocket(url, "calls.v1"));
}

/** Closes a socket whose events no longer matter. @param {Socket} socket @param {number} [code] */
export function drop(socket, code = 1000) {
  socket.onopen = socket.onmessage = socket.onclose = null;
  socket.close(code);
}

/** What answers, if only that it wants a WebSocket, is there. @param {string} url */
export async function isReachable(url) {
  try {
    const { type, status } = await fetch(url.replace(/^ws/, "http"), { mode: "no-cors", cache: "no-store" });
    return type === "opaque" || status < 500;
  } catch {
    return false;
  }
}
