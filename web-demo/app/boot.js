// Runs before the first paint, so that a chosen theme and a remembered name do not flash the other screen first.
(() => {
  const root = document.documentElement;
  try {
    const theme = localStorage.getItem("offhook.theme");
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
    const known = sessionStorage.getItem("offhook.name") || sessionStorage.getItem("offhook.token");
    if (known || location.hash.startsWith("#token=")) root.dataset.screen = "home";
  } catch {
    // Storage is blocked: the page starts with its defaults.
  }
})();
