/** Small settings kept in the browser. A browser that blocks storage just forgets them. */

/**
 * @param {string} key
 * @param {Storage} [area]
 * @returns {string | null}
 */
export function recall(key, area) {
  try {
    return (area ?? localStorage).getItem(`offhook.${key}`);
  } catch {
    return null;
  }
}

/**
 * @param {string} key
 * @param {string | null} value `null` forgets it
 * @param {Storage} [area]
 */
export function remember(key, value, area) {
  try {
    if (value === null) (area ?? localStorage).removeItem(`offhook.${key}`);
    else (area ?? localStorage).setItem(`offhook.${key}`, value);
  } catch {
    // Nothing is lost but comfort.
  }
}
