"use strict";
const all = query => [...document.querySelectorAll(query)];
const search = document.querySelector("#search"), kinds = all("input[name=kind]");
const findings = all("li.finding"), boxes = all("input[name=quarantine]");
const save = document.querySelector("#save"), hidden = JSON.parse(save.dataset.hidden);
const quarantine = () => [...new Set(boxes.filter(b => b.checked).map(b => JSON.parse(b.value)))]
  .concat(hidden);
const names = finding => [...finding.querySelectorAll("strong, b, code")]
  .map(each => each.textContent).join("\n").toLowerCase();
function filter() {
  const words = search.value.toLowerCase();
  const selected = new Set(kinds.filter(k => k.checked).map(k => k.value));
  let n = 0;
  for (const finding of findings) {
    finding.hidden = !(selected.has(finding.dataset.kind)
      && names(finding).includes(words));
    n += !finding.hidden;
  }
  document.querySelector("#shown").textContent = `${n} of ${findings.length} on this page shown`;
}
function count() { save.textContent = `Save quarantine.json (${quarantine().length})`; }
search.addEventListener("input", filter);
kinds.forEach(k => k.addEventListener("change", filter));
boxes.forEach(b => b.addEventListener("change", () => {
  boxes.filter(o => o.value === b.value).forEach(o => { o.checked = b.checked; });
  count();
}));
save.addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(quarantine(), null, 1)]));
  link.download = "quarantine.json";
  link.click();
});
document.querySelector("#controls").hidden = false;
filter(); count();
