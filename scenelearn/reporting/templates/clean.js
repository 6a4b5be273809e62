"use strict";
const $ = id => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const {classes, kinds, order, photos, decisions} = data;
const MAX_BUTTONS = 9;
const saved = {...decisions};
let shown = order, current = 0, waiting = Promise.resolve(), n_waiting = 0;

const address = k => `/photo/${k}?${photos[k].version}`;
const is_open = k => !decisions[k];
const position = () => shown[current];

function element(name, text, parent) {
  const made = document.createElement(name);
  made.textContent = text;
  parent.append(made);
  return made;
}

// What the page says

const SAYS = {
  label_issues: p => `Labeled ${classes[p.audited]}, looks like ${classes[p.suggestion]}`,
  conflicting_labels: p => `The same picture has different labels, here ${classes[p.audited]}`,
  leaks: p => `The same picture is in another split, here labeled ${classes[p.audited]}`,
  near_duplicates: () => "Another file shows the same picture",
  exact_duplicates: () => "Another file is identical",
  blank: p => `Blank, labeled ${classes[p.audited]}`,
  tiny: p => `Tiny, labeled ${classes[p.audited]}`,
  animated: p => `One of several images in the file, labeled ${classes[p.audited]}`,
  decided: p => `Decided earlier; in the folder it is ${classes[p.label]}`,
};

function say(decision) {
  if (!decision) return "";
  if (decision.decision === "relabel") return `Relabeled: ${decision.label}`;
  return decision.decision === "keep" ? "Kept" : "In quarantine";
}

function show() {
  const n = order.filter(k => !is_open(k)).length;
  $("progress").textContent = order.length ? `${n} of ${order.length} decided` : "No findings";
  const none = !shown.length;
  for (const each of document.querySelectorAll("#controls button, #previous, #next"))
    each.disabled = none;
  $("photo").hidden = none;
  $("companions").replaceChildren();
  if (none) {
    $("finding").textContent = "Nothing to decide here";
    $("path").textContent = $("decision").textContent = "";
    return;
  }
  const k = position(), photo = photos[k], decision = decisions[k];
  const picture = $("photo").cloneNode();  // the old element would show its photo until this one is loaded
  picture.src = address(k);
  $("photo").replaceWith(picture);
  $("photo").alt = `Photo ${current + 1} of ${shown.length}, labeled ${classes[photo.label]}`;
  $("path").textContent = `${current + 1} of ${shown.length} · ${photo.path}`;
  $("finding").textContent = SAYS[photo.findings[0]](photo);
  $("decision").textContent = say(decision);
  const label = classes[photo.label], is_new = photo.audited !== photo.label;  // relabeled earlier
  $("keep").firstChild.textContent = is_new ? `Back to ${label}, as in the folder` : `Keep ${label}`;
  $("accept").hidden = photo.suggestion === null || photo.suggestion === photo.label;
  $("accept").firstChild.textContent = `Relabel to ${classes[photo.suggestion]}`;
  $("keep").setAttribute("aria-pressed", decision?.decision === "keep");
  $("quarantine").setAttribute("aria-pressed", decision?.decision === "quarantine");
  for (const other of photo.companions) {
    const entry = element("li", "", $("companions"));
    element("img", "", entry).src = address(other);
    entry.firstChild.alt = "";
    const p = photos[other], note = say(decisions[other]);
    element("div", `${classes[p.label]}${note && `, ${note.toLowerCase()}`} · ${p.path}`, entry);
  }
  for (const ahead of shown.slice(current + 1, current + 4)) new Image().src = address(ahead);
}

// Decisions: shown at once, sent one after another

function send(path, body, done) {
  n_waiting++;
  waiting = waiting.then(async () => {
    try {
      const answer = await fetch(path, {method: "POST", body: JSON.stringify(body)});
      if (!answer.ok) throw new Error(await answer.text());
      done(await answer.json());
    } catch (error) {
      if (body.photo !== undefined) keep(body.photo, saved[body.photo]);
      $("problem").textContent = `Not saved: ${error.message}. ` +
        "If the command has ended, start it again and reload this page.";
      $("problem").hidden = false;
      show();
    }
    n_waiting--;
  });
}

function keep(k, decision) {
  for (const each of [decisions, saved]) {
    if (decision) each[k] = decision;
    else delete each[k];
  }
}

function decide(decision, label) {
  if (!shown.length) return;
  $("problem").hidden = true;
  const k = position();
  if (label === photos[k].label) [decision, label] = ["keep", undefined];
  const name = typeof label === "number" ? classes[label] : label;
  decisions[k] = {decision, label: name ?? ""};
  send("/decide", label === undefined ? {photo: k, decision} : {photo: k, decision, label},
    answer => keep(k, answer.decision));
  advance();
}

function advance() {
  const after = [...shown.keys()].map(k => (current + 1 + k) % shown.length);
  const open = after.find(k => is_open(shown[k]));
  if (open !== undefined) current = open;
  show();
  if (open === undefined) $("decision").textContent += " – all of these are decided";
}

function undo() {
  $("problem").hidden = true;
  send("/undo", {}, answer => {
    if (answer.photo === null) {
      $("decision").textContent = "Nothing to undo";
      return;
    }
    keep(answer.photo, answer.decision);
    if (!shown.includes(answer.photo)) choose("");
    current = Math.max(0, shown.indexOf(answer.photo));
    show();
    $("decision").textContent = `Undone. ${say(answer.decision)}`;
  });
}

function move(step) {
  if (shown.length) current = (current + step + shown.length) % shown.length;
  show();
}

function choose(kind) {
  $("kind").value = kind;
  shown = kind ? order.filter(k => photos[k].findings.includes(kind)) : order;
  current = Math.max(0, shown.findIndex(is_open));
  show();
}

// Controls

element("option", `All findings (${order.length})`, $("kind")).value = "";
for (const [kind, title] of Object.entries(kinds)) {
  const n = order.filter(k => photos[k].findings.includes(kind)).length;
  if (n) element("option", `${title} (${n})`, $("kind")).value = kind;
}
classes.forEach((name, k) => {
  element("option", "", $("names")).value = name;
  if (k >= MAX_BUTTONS) return;
  const button = element("button", name, $("classes"));
  element("kbd", k + 1, button);
  button.dataset.key = k + 1;
  button.addEventListener("click", () => decide("relabel", k));
});
$("kind").addEventListener("change", () => {
  choose($("kind").value);
  $("kind").blur();  // keys decide again
});
$("keep").addEventListener("click", () => decide("keep"));
$("accept").addEventListener("click", () => decide("relabel", photos[position()].suggestion));
$("quarantine").addEventListener("click", () => decide("quarantine"));
$("undo").addEventListener("click", undo);
$("previous").addEventListener("click", () => move(-1));
$("next").addEventListener("click", () => move(1));
$("other").addEventListener("submit", event => {
  event.preventDefault();
  const name = $("label").value.trim(), known = classes.indexOf(name);
  $("label").value = "";
  $("label").blur();
  if (name) decide("relabel", known < 0 ? name : known);
});
document.addEventListener("keydown", event => {
  const typing = event.target.matches("input:not([type=checkbox]), select");
  if (typing || !$("shortcuts").checked || event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const button = document.querySelector(`button[data-key="${CSS.escape(key)}"]`);
  if (!button || button.hidden || event.repeat) return;
  event.preventDefault();
  button.click();
});
window.addEventListener("beforeunload", event => { if (n_waiting) event.preventDefault(); });
choose("");
