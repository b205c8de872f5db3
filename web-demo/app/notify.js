/**
 * Reaching a person who looks elsewhere: the title of the tab, a notification of the system, a vibration.
 */

const TITLE = "Offhook";
const FLASH_MS = 1000;

let flashTimer = 0;
let vibrateTimer = 0;
/** @type {Notification | null} */
let shown = null;

/** @returns {"unsupported" | NotificationPermission} */
export function notificationPermission() {
  return "Notification" in window && isSecureContext ? Notification.permission : "unsupported";
}

/** Asks for permission; call it from a click, as browsers want. */
export async function askForNotifications() {
  return notificationPermission() === "default" ? Notification.requestPermission() : notificationPermission();
}

/**
 * Starts calling for attention.
 *
 * @param {string} name who calls
 * @param {boolean} video
 */
export function startAttention(name, video) {
  stopAttention();
  let on = false;
  const flash = () => {
    on = !on;
    document.title = on ? `${name} is calling` : TITLE;
  };
  flash();
  flashTimer = window.setInterval(flash, FLASH_MS);

  const vibrate = () => navigator.vibrate?.([300, 150, 300]);
  vibrate();
  vibrateTimer = window.setInterval(vibrate, 3000);

  if (document.hidden && notificationPermission() === "granted") notify(name, video);
}

export function stopAttention() {
  clearInterval(flashTimer);
  clearInterval(vibrateTimer);
  if (vibrateTimer) navigator.vibrate?.(0);
  vibrateTimer = 0;
  document.title = TITLE;
  shown?.close();
  shown = null;
}

/**
 * @param {string} name
 * @param {boolean} video
 */
function notify(name, video) {
  try {
    shown = new Notification(`${name} is calling`, {
      body: video ? "Video call. Click to answer." : "Voice call. Click to answer.",
      icon: "/app/icon.svg",
      tag: "offhook-incoming",
      requireInteraction: true,
    });
    shown.onclick = () => {
      window.focus();
      shown?.close();
    };
  } catch {
    // Chrome on Android only lets service workers notify; there the ring and the vibration have to do.
  }
}
