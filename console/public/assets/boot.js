// Say that a part of the page is missing, and load the page again until it is whole. While replicas are replaced, one of
// them names a file that another one does not have. Every release serves this file under this name.
{
  const KEY = "coordinator.loads";
  const MOST_LOADS = 20;
  const FORGET_MILLISECONDS = 300_000;
  let shown = false;

  const loads = () => {
    try {
      const times = JSON.parse(sessionStorage.getItem(KEY) ?? "[]");
      return times.filter((at) => at > Date.now() - FORGET_MILLISECONDS);
    } catch {
      return [];
    }
  };

  const loadAgain = () => {
    sessionStorage.setItem(KEY, JSON.stringify([...loads(), Date.now()]));
    location.reload();
  };

  const show = () => {
    if (shown) {
      return;
    }
    shown = true;
    const before = loads().length;
    const words = document.createElement("p");
    const button = document.createElement("button");
    button.textContent = "Load it now";
    button.onclick = loadAgain;
    if (before < MOST_LOADS) {
      words.textContent =
        "A part of the console is not there yet: a new version is being installed. The page loads again. ";
      setTimeout(loadAgain, Math.min(5000, 500 * 2 ** before));
    } else {
      words.textContent =
        "A part of the console is missing. Load the page again when the coordinator has been updated. ";
    }
    words.append(button);
    words.setAttribute("role", "alert");
    words.style.padding = "0 20px";
    document.body.prepend(words);
  };

  const showWhenReady = () => {
    if (document.body) {
      show();
    } else {
      addEventListener("DOMContentLoaded", show);
    }
  };

  // Errors of elements do not bubble: catch them on their way down.
  addEventListener(
    "error",
    ({ target }) => {
      if (target instanceof HTMLScriptElement || (target instanceof HTMLLinkElement && target.rel === "stylesheet")) {
        showWhenReady();
      }
    },
    true,
  );
  // From the page itself, for its worker.
  addEventListener("coordinator:missing", showWhenReady);
}
