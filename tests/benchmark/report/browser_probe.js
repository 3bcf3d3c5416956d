// Runs inside the page, before its own scripts, and tells the frame around it what it saw.
const seen = { errors: [], blocked: [] };
addEventListener("error", (event) => seen.errors.push(event.message));
addEventListener("unhandledrejection", (event) => seen.errors.push(String(event.reason)));
addEventListener("securitypolicyviolation", (event) => seen.blocked.push(event.blockedURI));
for (const level of ["error", "warn"]) {
  console[level] = (...words) => seen.errors.push(words.join(" "));
}

const scrolls = (element) => element.closest(".scroll");
const box = (element) => element.getBoundingClientRect();
const visible = (element) => box(element).width > 0 && getComputedStyle(element).visibility === "visible";
const owns = (element) =>
  [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());

// The colours of text, and of what is behind it.
function inks() {
  const found = {};
  for (const element of document.body.querySelectorAll("*:not(script, style, svg *)")) {
    if (!owns(element) || !visible(element)) continue;
    let behind = element;
    while (behind && getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") {
      behind = behind.parentElement;
    }
    const pair = `${getComputedStyle(element).color} on ${getComputedStyle(behind || document.body).backgroundColor}`;
    found[pair] = element.textContent.trim().slice(0, 40);
  }
  return found;
}

function plot(element) {
  const inside = box(element);
  const labels = [...element.querySelectorAll("text")].filter((text) => text.textContent.trim());
  const outside = labels.filter((text) => {
    const { left, right, top, bottom } = box(text);
    return left < inside.left - 1 || right > inside.right + 1 || top < inside.top - 1 || bottom > inside.bottom + 1;
  });
  return {
    marks: element.querySelectorAll(".trace path, .point path, .points path, .hm image").length,
    labels: labels.length,
    clipped: outside.map((text) => text.textContent),
    ink: getComputedStyle(element.querySelector(".xtick text, .ytick text")).fill,
  };
}

function toggled() {
  const button = document.querySelector(".legend button");
  const drawn = () => button.closest("figure").querySelectorAll(".trace").length;
  const counts = [drawn()];
  for (let turn = 0; turn < 2; turn += 1) {
    button.click();
    counts.push(drawn());
  }
  return counts;
}

function tell() {
  const wide = [...document.body.querySelectorAll("*")].filter(
    (element) => visible(element) && box(element).right > innerWidth + 1 && !scrolls(element),
  );
  const report = {
    width: innerWidth,
    content: document.documentElement.scrollWidth,
    wide: wide.map((element) => `${element.tagName} ${element.className}`).slice(0, 5),
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    inks: inks(),
    surface: getComputedStyle(document.querySelector("figure")).backgroundColor,
    plots: [...document.querySelectorAll(".plot")].map(plot),
    images: [...document.images].filter((image) => image.naturalWidth === 0).length,
    resources: performance.getEntriesByType("resource").map((entry) => entry.name),
    toggled: toggled(),
    title: document.title,
  };
  parent.postMessage(JSON.stringify({ ...seen, ...report }), "*");
}

function whenDrawn() {
  const open = [...document.querySelectorAll(".plot")].some((plot) => !plot.querySelector("text"));
  setTimeout(open ? whenDrawn : tell, 300);
}
addEventListener("load", whenDrawn);
