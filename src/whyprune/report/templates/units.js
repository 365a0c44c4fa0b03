(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("unit-data").textContent);
  const column = Object.fromEntries(data.columns.map((name, i) => [name, i]));
  const { low, high, linear } = data.axis;
  const PAGE = 100;
  const SVG = "http://www.w3.org/2000/svg";
  const body = document.getElementById("unit-rows");
  const search = document.getElementById("unit-search");
  const showKept = document.getElementById("unit-kept");
  const more = document.getElementById("unit-more");
  const status = document.getElementById("unit-status");
  const headers = [...document.querySelectorAll("#unit-table th[data-key]")];
  const order = { key: "effect", down: true };
  let found = [];
  let shown = 0;

  const text = data.rows.map((row) => (data.groups[row[0]] + " " + row[column.unit]).toLowerCase());
  const number = (value) => {
    if (value === null) return "not measured";
    if (value === 0 || (Math.abs(value) >= 1e-3 && Math.abs(value) < 1e4)) {
      return value.toPrecision(3).replace("-", "−");
    }
    const [digits, power] = value.toExponential(2).split("e");
    const raised = [...power.replace("+", "")].map((c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]).join("");
    return digits.replace("-", "−") + "×10" + raised;
  };
  const count = (value) => value.toLocaleString("en-US");
  const bend = (value) => Math.sign(value) * Math.log10(1 + Math.abs(value) / linear);
  const at = (value) => Math.min(1000, Math.max(0,
    1000 * (bend(value) - bend(low)) / (bend(high) - bend(low)))).toFixed(0);

  function cell(row, content, kind) {
    const element = row.insertCell();
    element.textContent = content;
    if (kind) element.className = kind;
    return element;
  }

  function path(svg, d, kind) {
    const element = document.createElementNS(SVG, "path");
    element.setAttribute("d", d);
    element.setAttribute("class", kind);
    svg.append(element);
  }

  function whisker(unit) {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", "-12 0 1024 24");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    path(svg, `M${at(0)} 0v24`, "zero");
    const state = unit[column.removed] ? "removed" : "kept";
    if (unit[column.low] !== null && unit[column.high] !== null) {
      path(svg, `M${at(unit[column.low])} 12H${at(unit[column.high])}`, "whisker " + state);
    }
    if (unit[column.effect] !== null) path(svg, `M${at(unit[column.effect])} 12h0`, "dot " + state);
    return svg;
  }

  function line(i) {
    const unit = data.rows[i];
    const row = document.createElement("tr");
    const removed = unit[column.removed];
    cell(row, removed ? "● removed" : "| kept", removed ? "state removed" : "state kept");
    for (const name of [data.groups[unit[0]], unit[column.unit]]) cell(row, name, "name").title = name;
    cell(row, number(unit[column.effect]), "n");
    const interval = unit[column.low] === null || unit[column.high] === null
      ? "not measured" : number(unit[column.low]) + " to " + number(unit[column.high]);
    cell(row, interval, "n wide");
    cell(row, "", "picture").append(whisker(unit));
    cell(row, count(unit[column.samples]), "n");
    cell(row, count(unit[column.macs]), "n");
    cell(row, count(unit[column.params]), "n");
    return row;
  }

  function extend() {
    const next = document.createDocumentFragment();
    for (const i of found.slice(shown, shown + PAGE)) next.append(line(i));
    body.append(next);
    shown = Math.min(shown + PAGE, found.length);
    status.textContent = `${count(shown)} of ${count(found.length)} matching units shown`;
    more.hidden = shown >= found.length;
  }

  function compare(a, b) {
    const key = column[order.key];
    const x = order.key === "group" ? data.groups[data.rows[a][0]] : data.rows[a][key];
    const y = order.key === "group" ? data.groups[data.rows[b][0]] : data.rows[b][key];
    if (x === y) return a - b;
    if (x === null || y === null) return x === null ? 1 : -1;
    const sign = typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y;
    return order.down ? -sign : sign;
  }

  function update() {
    const wanted = search.value.trim().toLowerCase();
    found = data.rows.map((_, i) => i)
      .filter((i) => (showKept.checked || data.rows[i][column.removed]) && text[i].includes(wanted))
      .sort(compare);
    for (const header of headers) {
      const sorted = header.dataset.key === order.key ? (order.down ? "descending" : "ascending") : "none";
      header.setAttribute("aria-sort", sorted);
    }
    body.replaceChildren();
    shown = 0;
    extend();
  }

  for (const header of headers) {
    header.querySelector("button").addEventListener("click", () => {
      const key = header.dataset.key;
      order.down = order.key === key ? !order.down : !["group", "unit"].includes(key);
      order.key = key;
      update();
    });
  }
  let waiting = 0;
  search.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(update, 120);
  });
  showKept.addEventListener("change", update);
  more.addEventListener("click", extend);
  update();
})();
