// The colour scheme: the system's, or the one that was chosen here. A classic script, so that it runs before the
// first paint.
//
// `modelfleetScheme.next()` goes on to the next one, `.name` says which is in force. Charts listen for the event
// `scheme`.
{
  const KEY = "modelfleet.scheme";
  const NAMES = ["system", "light", "dark"];

  const read = () => {
    try {
      const kept = localStorage.getItem(KEY);
      return NAMES.includes(kept) ? kept : "system";
    } catch {
      return "system"; // storage is switched off: the choice lasts as long as the page
    }
  };

  const put = (name) => {
    globalThis.modelfleetScheme.name = name;
    if (name === "system") delete document.documentElement.dataset.scheme;
    else document.documentElement.dataset.scheme = name;
    dispatchEvent(new Event("scheme"));
  };

  const next = () => {
    const name = NAMES[(NAMES.indexOf(globalThis.modelfleetScheme.name) + 1) % NAMES.length];
    try {
      localStorage.setItem(KEY, name);
    } catch {
      // as above
    }
    put(name);
  };

  globalThis.modelfleetScheme = { name: "system", next };
  put(read());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dispatchEvent(new Event("scheme")));
}
