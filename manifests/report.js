"use strict";
// One clip is often part of many rows: its data stand in the page once.
for (const img of document.querySelectorAll("img[data-same]"))
  img.src = document.getElementById(img.dataset.same).src;

const section = document.getElementById("gallery");
const cards = [...section.querySelectorAll(".card, .rows tbody tr")];
const found = document.getElementById("found");
const find = document.getElementById("find");

if (find) find.addEventListener("input", () => {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const card of cards) {
    card.text ??= (card.textContent + " " + card.dataset.video).toLowerCase();
    card.hidden = !words.every((word) => card.text.includes(word));
    shown += !card.hidden;
  }
  found.textContent = words.length ? shown + " of " + cards.length : "";
});

const sorts = [...section.querySelectorAll("[data-sort]")];
for (const button of sorts) button.addEventListener("click", () => {
  const key = button.dataset.sort;
  const down = button.getAttribute("aria-pressed") === "true" && button.dataset.order === "up";
  for (const other of sorts) {
    other.setAttribute("aria-pressed", String(other === button));
    delete other.dataset.order;
  }
  button.dataset.order = down ? "down" : "up";
  const value = (card) => key === "video" ? card.dataset.video : parseFloat(card.dataset[key] ?? "Infinity");
  const compare = (a, b) => key === "video" ? a.localeCompare(b, undefined, { numeric: true }) : a - b || 0;
  cards.sort((a, b) => (down ? -1 : 1) * compare(value(a), value(b)));
  cards[0].parentNode.append(...cards);
});

// A still stands over each picture while paused; the animation itself cannot be stopped.
function still(frame) {
  const img = frame.querySelector("img");
  if (!img || frame.querySelector("canvas")) return;
  const canvas = document.createElement("canvas");
  canvas.width = img.naturalWidth;
  canvas.height = img.naturalHeight;
  canvas.getContext("2d").drawImage(img, 0, 0);
  canvas.setAttribute("aria-hidden", "true");
  frame.append(canvas);
}
const near = new IntersectionObserver((entries) => {
  for (const entry of entries)
    if (entry.isIntersecting) still(entry.target);
    else entry.target.querySelector("canvas")?.remove();
}, { rootMargin: "400px" });
const pause = document.getElementById("pause");
function setPaused(paused) {
  pause?.setAttribute("aria-pressed", String(paused));
  document.body.classList.toggle("paused", paused);
  for (const frame of document.querySelectorAll("main .frame")) {
    if (paused) near.observe(frame);
    else { near.unobserve(frame); frame.querySelector("canvas")?.remove(); }
  }
}
pause?.addEventListener("click", () => setPaused(pause.getAttribute("aria-pressed") !== "true"));
addEventListener("load", () => {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) setPaused(true);
});

const large = document.getElementById("large");
document.addEventListener("click", (event) => {
  const card = event.target.closest(".frame")?.closest("main .card");
  if (!card) return;
  const copy = card.cloneNode(true);
  for (const part of copy.querySelectorAll("canvas, [id]")) {
    part.removeAttribute("id");
    if (part.tagName === "CANVAS") part.remove();
  }
  for (const more of copy.querySelectorAll("details")) more.open = true;
  document.getElementById("large-card").replaceChildren(copy);
  large.showModal();
});
large.addEventListener("click", (event) => { if (event.target === large) large.close(); });
large.addEventListener("close", () => document.getElementById("large-card").replaceChildren());
